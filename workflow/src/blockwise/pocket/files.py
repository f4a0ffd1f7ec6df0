"""Pocket backbones on disk: Hugging Face files, and the digest that ties them to their recipe."""

from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.utils import logging as transformers_logging

from blockwise.artifacts import digest
from blockwise.config.datasets import Split
from blockwise.config.pocket import PocketRecipe
from blockwise.config.prompts import load_prompt
from blockwise.pocket.lessons import make_lessons, make_recitals
from blockwise.pocket.scenes import LEVELS
from blockwise.pocket.sequences import LessonEncoder

MODEL_FOLDER, TRAINING_FILE, SKILLS_FILE, CARD_FILE = (
    "model",
    "training.json",
    "skills.json",
    "README.md",
)
DIGESTED_FACTS = (2, 8, 48)  # scenes whose lessons stand for all lessons
CONTENT_PROMPTS = ("dialogue", "evidence")


def taught_prompts(folder: Path) -> dict[str, str]:
    """The compaction prompts that pocket backbones are taught, by name."""
    return {name: load_prompt(folder, name).text for name in (*LEVELS, *CONTENT_PROMPTS)}


def recipe_digest(recipe: PocketRecipe, tokenizer: Any, prompts: Mapping[str, str]) -> str:
    """Stands for everything that decides the weights but the machine.

    Settings, vocabulary and lessons enter by their values, lessons as a sample: code may be
    rearranged, but whoever changes what is taught has another recipe.
    """
    encoder = LessonEncoder(tokenizer, reasoning=recipe.reasoning)
    rng = Random("digest")
    lessons = [make_recitals(rng, Split.TRAIN, DIGESTED_FACTS[-1], 1)]
    for num_facts in DIGESTED_FACTS:
        lessons += make_lessons(rng, num_facts, Split.TRAIN, prompts)
    tokens = [(one.ids, one.positions, one.labels) for one in map(encoder.encode, lessons)]
    vocabulary = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    settings = recipe.model_dump(mode="json", exclude={"examination", "checkpoint_every_steps"})
    return digest([settings, vocabulary, tokens])


def write_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write weights in bfloat16, tokenizer and configuration, as vLLM loads them.

    The model is changed: its weights become bfloat16.
    """
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=model.config.bos_token_id,
        eos_token_id=model.config.eos_token_id,
        do_sample=False,
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
