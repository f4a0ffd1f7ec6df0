"""Errors of Wgrad on drawn operands: what outliers do to each remedy.

    python -m blockwise.mxfp4.outliers --config ... --experiment ... --output ...

Wgrad sums dy and x over tokens, so its groups of 32 and its rotations run along tokens, and two
kinds of outlier lie along them. Token outliers are a few tokens whose dy is many times larger: in
their group everything else falls below the smallest FP4 value, unless a rotation spreads them.
Channel means are channels of x that keep the same offset over all tokens: a deterministic
rotation collects a constant in one coefficient of each run, which then is the outlier itself; one
with random signs does not. Nothing else here differs between the two rotations.
"""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from blockwise.artifacts import write_model
from blockwise.config.mxfp4 import MXFP4, OutlierExperiment
from blockwise.config.recipes import Recipe
from blockwise.errors import ConfigError, run_command
from blockwise.mxfp4.arithmetic import Arithmetic
from blockwise.mxfp4.gemm_errors import FLOAT32, operand_statistics, part_in, product_errors
from blockwise.mxfp4.noise import draw_key
from blockwise.mxfp4.origin import origin
from blockwise.mxfp4.records import OutlierError, Outliers
from blockwise.mxfp4.selection import experiment_of, study_of

Pattern = Literal["gaussian", "token_outliers", "channel_means"]
PATTERNS: tuple[Pattern, ...] = ("token_outliers", "channel_means")
"""Those that have a size; without outliers the size is 0."""


class Operands(NamedTuple):
    """What Wgrad multiplies: float32, both [tokens, features]."""

    dy: Tensor
    x: Tensor


def draw_operands(
    experiment: OutlierExperiment, pattern: Pattern, size: float, generator: torch.Generator
) -> Operands:
    """Standard normal operands with one kind of outlier.

    `token_outliers` multiplies a share of the tokens of dy, at random places, by `size`.
    `channel_means` adds to each channel of x a constant of random sign. Its magnitude is
    log-uniform over the octave around `size`: a single one would lie on an FP4 value or between
    two, depending on nothing but the size chosen.
    """
    shape = (experiment.num_tokens, experiment.num_features)
    dy, x = (torch.randn(shape, generator=generator) for _ in range(2))
    if pattern == "token_outliers":
        num_outliers = max(1, round(experiment.outlier_token_frac * experiment.num_tokens))
        tokens = torch.randperm(experiment.num_tokens, generator=generator)[:num_outliers]
        dy[tokens] *= size
    if pattern == "channel_means":
        octave = torch.rand(experiment.num_features, generator=generator) - 0.5
        signs = 1 - 2 * torch.randint(2, (experiment.num_features,), generator=generator)
        x += signs * size * 2**octave
    return Operands(dy, x)


def stress(experiment: OutlierExperiment, arms: Mapping[str, Recipe]) -> list[OutlierError]:
    """Errors of every arm's Wgrad for each seed, pattern and size; all arms on the same operands.

    Raises:
        ConfigError: an arm does not quantize Wgrad.
    """
    others = [name for name, recipe in arms.items() if recipe.wgrad is None]
    if others:
        raise ConfigError(
            f"the arms {', '.join(others)} do not quantize Wgrad to MXFP4, and the outlier stress "
            "is about Wgrad; leave them out, or give them a wgrad recipe"
        )
    return [
        error
        for seed in experiment.seeds
        for pattern, size in _cases(experiment)
        for error in _errors(experiment, arms, seed, pattern, size)
    ]


def _cases(experiment: OutlierExperiment) -> Iterator[tuple[Pattern, float]]:
    yield "gaussian", 0.0
    for pattern in PATTERNS:
        for size in experiment.outlier_sizes:
            yield pattern, size


def _errors(
    experiment: OutlierExperiment,
    arms: Mapping[str, Recipe],
    seed: int,
    pattern: Pattern,
    size: float,
) -> Iterator[OutlierError]:
    generator = torch.Generator().manual_seed(seed)
    operands = draw_operands(experiment, pattern, size, generator)
    key = draw_key(generator)
    reference = FLOAT32.product("W", *operands, key)
    for arm, recipe in arms.items():
        part = part_in("W", recipe)
        assert part is not None  # refused above
        product = Arithmetic(part).product("W", *operands, key)
        left, _ = operand_statistics("W", operands, part, key)
        yield OutlierError(
            arm=arm,
            seed=seed,
            pattern=pattern,
            size=size,
            relative_error=product_errors(product, reference).relative_error,
            underflow_frac=left.underflow_frac or 0.0,  # unquantized, nothing vanishes
        )


def run(study: MXFP4, name: str) -> Outliers:
    """The record of one experiment.

    Raises:
        ConfigError: no such experiment, or an arm that does not quantize Wgrad.
    """
    begun = origin("cpu")
    experiment = experiment_of(study, name, OutlierExperiment)
    arms = {arm: study.arms[arm] for arm in experiment.arms}
    return Outliers(experiment=name, errors=stress(experiment, arms), origin=begun)


def main() -> None:
    """Command line: one experiment."""
    parser = argparse.ArgumentParser(prog="python -m blockwise.mxfp4.outliers", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="resolved profile")
    parser.add_argument("--experiment", required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the same sums on every machine
    study = study_of(arguments.config)
    write_model(arguments.output, run(study, arguments.experiment))


if __name__ == "__main__":
    run_command(main)
