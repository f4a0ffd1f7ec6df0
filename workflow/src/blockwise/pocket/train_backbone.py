"""The training job of one pocket backbone.

`python -m blockwise.pocket.train_backbone --config PROFILE.json --backbone NAME --prompts DIR
--checkpoint FILE --threads N --output-dir DIR`

A killed job continues from its checkpoint. The folder gets the model files and `training.json`,
which is written last.
"""

import argparse
import statistics
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import torch

from blockwise.artifacts import read_model, replacing_folder
from blockwise.artifacts import write_model as write_record
from blockwise.config.datasets import Split
from blockwise.config.pocket import PocketRecipe
from blockwise.config.profile import Profile
from blockwise.errors import ConfigError, run_command
from blockwise.pocket.earlier import start_from
from blockwise.pocket.files import (
    MODEL_FOLDER,
    TRAINING_FILE,
    recipe_digest,
    taught_prompts,
    write_model,
)
from blockwise.pocket.lessons import make_lessons
from blockwise.pocket.records import CurvePoint, PocketTraining, SummaryLengths
from blockwise.pocket.tokenizer import make_tokenizer
from blockwise.pocket.train import PocketTrainer, train
from blockwise.progress import WorkProgress
from blockwise.provenance import cpu_model, git_state, package_versions, utc_now

NUM_SAMPLED_SCENES = 400  # of the last lessons, for the distribution of summary lengths


def train_pocket(
    name: str, recipe: PocketRecipe, prompts: Mapping[str, str], checkpoint: Path, folder: Path
) -> PocketTraining:
    """Train a pocket backbone, or finish what a killed job began, and write its files."""
    tokenizer = make_tokenizer(prompts)
    trainer = PocketTrainer(recipe, tokenizer, prompts)
    if recipe.starts_from is not None:
        start_from(trainer.model, tokenizer, name, recipe.starts_from)
    key = recipe_digest(recipe, tokenizer, prompts)
    trainer.resume(checkpoint, key)
    with WorkProgress(name, recipe.num_steps, trainer.progress.step, unit="steps") as progress:
        train(
            trainer,
            checkpoint,
            key,
            report=lambda num_tokens, state: progress.advance(num_tokens, state=state),
        )
    record = _record(name, trainer, tokenizer, key, prompts)
    with replacing_folder(folder / MODEL_FOLDER) as unfinished:
        write_model(trainer.model, tokenizer, unfinished)
    write_record(folder / TRAINING_FILE, record)
    return record


def _record(
    name: str, trainer: PocketTrainer, tokenizer: Any, key: str, prompts: Mapping[str, str]
) -> PocketTraining:
    progress = trainer.progress
    return PocketTraining(
        name=name,
        recipe=trainer.recipe,
        recipe_digest=key,
        num_parameters=sum(parameter.numel() for parameter in trainer.model.parameters()),
        vocab_size=len(tokenizer),
        num_tokens=progress.num_tokens,
        num_resumes=progress.num_resumes,
        train_s=progress.train_s,
        curve=[CurvePoint.model_validate(point) for point in progress.curve],
        summary_lengths=summary_lengths(progress.max_facts, tokenizer, prompts),
        packages=package_versions(),
        cpu=cpu_model(),
        commit=git_state()[0],
        finished_at=utc_now(),
    )


def summary_lengths(
    max_facts: int, tokenizer: Any, prompts: Mapping[str, str]
) -> list[SummaryLengths]:
    """The distribution of the summaries taught in scenes of up to so many facts."""
    rng = Random("lengths")
    found: dict[tuple[str, int], list[int]] = {}
    for _ in range(NUM_SAMPLED_SCENES):
        for lesson in make_lessons(rng, max_facts, Split.TRAIN, prompts):
            for _, reply in lesson.conversations:
                if reply.level is not None:
                    tokens = len(tokenizer(reply.text, add_special_tokens=False)["input_ids"])
                    found.setdefault((reply.kind, reply.level), []).append(tokens)
    return [
        SummaryLengths(
            layout=layout,
            level=level,
            num_summaries=len(tokens),
            mean_tokens=statistics.fmean(tokens),
            median_tokens=statistics.median(tokens),
            p90_tokens=statistics.quantiles(tokens, n=10)[-1],
        )
        for (layout, level), tokens in sorted(found.items())
    ]


def main() -> None:
    """Command line: name of the backbone, and paths."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for flag in ("config", "prompts", "checkpoint", "output-dir"):
        parser.add_argument(f"--{flag}", type=Path, required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipes = read_model(arguments.config, Profile).pocket
    if arguments.backbone not in recipes:
        raise ConfigError(
            f"pocket has no recipe {arguments.backbone!r}; it has: "
            f"{', '.join(sorted(recipes)) or 'none'}"
        )
    train_pocket(
        arguments.backbone,
        recipes[arguments.backbone],
        taught_prompts(arguments.prompts),
        arguments.checkpoint,
        arguments.output_dir,
    )


if __name__ == "__main__":
    run_command(main)
