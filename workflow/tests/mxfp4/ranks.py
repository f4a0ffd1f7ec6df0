"""What two processes do under torchrun, for test_ranks.py; the first prints it as JSON."""

import json
import sys
from pathlib import Path

import torch
from test_train import KilledError, Words, spec

from blockwise.config.recipes import Recipe
from blockwise.mxfp4 import distributed
from blockwise.mxfp4.records import RunSpec, TrainingRun
from blockwise.mxfp4.train import train

RECIPE = Recipe(fprop={}, dgrad={}, wgrad={"rotation": {"kind": "dht"}})
TRAINING = {
    "num_steps": 8,
    "evaluate_every_steps": 4,
    "evaluation_sequences": 3,  # cannot be shared evenly
    "checkpoint_every_steps": 3,
}
KILLED_AT = 5


def wanted(**changes) -> RunSpec:
    return spec(RECIPE, training=TRAINING, num_processes=distributed.num_processes(), **changes)


def trained(folder: Path, **changes) -> TrainingRun:
    return train(wanted(**changes), Words(), folder, is_compiled=False)


def kill(folder: Path) -> None:
    def at_step(step, model):
        if step == KILLED_AT:
            raise KilledError

    try:
        train(wanted(), Words(), folder, is_compiled=False, at_step=at_step)
    except KilledError:
        return
    raise AssertionError("the run was not killed")


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    with distributed.process_group("cpu"):
        runs = {
            "whole": trained(folder / "whole"),
            "recomputed": trained(folder / "recomputed", activation_checkpointing=True),
            "continued": trained(folder / "of-one"),
        }
        kill(folder / "of-two")
        if distributed.rank() == 0:
            print(json.dumps({name: run.model_dump(mode="json") for name, run in runs.items()}))
