"""Trains a small run under torchrun and prints its losses (started by test_ranks.py)."""

import json
import sys
from pathlib import Path

import torch
from test_train import Words, spec

from blockwise.config.recipes import Recipe
from blockwise.mxfp4 import distributed
from blockwise.mxfp4.train import train

if __name__ == "__main__":
    torch.set_num_threads(1)
    with distributed.process_group("cpu"):
        recipe = Recipe.model_validate_json(sys.argv[1])
        wanted = spec(recipe, training={"num_steps": 12})
        done = train(wanted, Words(), Path(sys.argv[2]), is_compiled=False)
        if distributed.rank() == 0:
            print(json.dumps(done.train_losses))
