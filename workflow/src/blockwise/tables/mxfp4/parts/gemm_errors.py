"""Errors of quantized GEMMs on a shared trajectory, summed up over layers.

Every arm multiplies the same operands, taken from the training of one baseline, so that arms
differ by their arithmetic alone. Layers of one model are no independent evidence: a row shows
their mean and range and no interval. Two studies read the same errors, one by GEMM and remedy,
one by scale rule; each has a table of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import pandas as pd

from blockwise.config.mxfp4 import MXFP4, DiagnosticsExperiment
from blockwise.config.mxfp4_studies import Study
from blockwise.config.recipes import Dgrad, Fprop, Gemm, Operand, RandomizedHadamard, Wgrad
from blockwise.errors import ArtifactError
from blockwise.mxfp4.records import Diagnostics, ErrorStatistics
from blockwise.tables.columns import Column, count, frame, text
from blockwise.tables.inputs import TableInputs
from blockwise.tables.mxfp4.parts.spread import RANGE, Spread
from blockwise.tables.mxfp4.parts.training import ARM, SCOPE, known_parameters

SIDES = ("left", "right")
GEMMS: dict[str, Gemm] = {"F": Fprop(), "D": Dgrad(), "W": Wgrad()}  # in the order of rows

ErrorOf = Callable[[ErrorStatistics], float | None]


def _spread(name: str, suffix: str, meaning: str) -> Spread:
    return Spread(name, suffix, "1", meaning, over="layers", statistics=RANGE)


def _of_operand(name: str, side: int) -> ErrorOf:
    def of(error: ErrorStatistics) -> float | None:
        value: float | None = getattr(error, name)[side]
        return value

    return of


PRODUCT_MEASURES: tuple[tuple[Spread, ErrorOf], ...] = (
    (
        _spread("relative_error", "", "Size of the product's error over the product's"),
        lambda error: error.relative_error,
    ),
    (
        _spread(
            "systematic_error",
            "",
            "Size of the error's mean over batches (in Fprop and Dgrad over tokens too), over "
            "the size of the product's mean",
        ),
        lambda error: error.systematic_error,
    ),
    (
        _spread("cosine", "", "Cosine of the product and the float32 product"),
        lambda error: error.cosine,
    ),
    (
        _spread(
            "shrinkage",
            "",
            "1 less the product's projection on the float32 product; above 0 it shrinks",
        ),
        lambda error: error.shrinkage,
    ),
    (
        _spread(
            "gradient_to_noise",
            "",
            "Wgrad: size of the weights' gradient over that of its error; empty elsewhere",
        ),
        lambda error: error.gradient_to_noise,
    ),
)
OPERAND_MEASURES: tuple[tuple[Spread, ErrorOf], ...] = tuple(
    (_spread(f"{side}_{name}", suffix, f"{words} of the {side} operand"), _of_operand(field, index))
    for index, side in enumerate(SIDES)
    for name, suffix, field, words in (
        ("underflow", "_frac", "underflow_frac", "Share of non-zero values that became zero"),
        ("saturation", "_frac", "saturation_frac", "Share of scaled values beyond 6, the largest,"),
        ("kurtosis", "", "kurtosis", "Kurtosis as quantized, after any rotation (3: normal),"),
    )
)
MEASURES = (*PRODUCT_MEASURES, *OPERAND_MEASURES)

COLUMNS: tuple[Column, ...] = (
    *SCOPE,
    text("baseline", "Arm whose training gives the trajectory."),
    count("seed", "Seed of that training.", unit=""),
    count("step", "Optimizer steps of it that were done.", unit=""),
    ARM,
    text("gemm", "F: Fprop, Y = X W^T; D: Dgrad, dX = dY W; W: Wgrad, dW = dY^T X."),
    text("precision", "Arithmetic of the arm's GEMMs."),
    *(
        column
        for side in SIDES
        for column in (
            text(f"{side}_operand", f"The {side} operand of the product: x, w or dy."),
            text(f"{side}_rounding", "Its rounding; empty: it is not quantized in MXFP4."),
            text(f"{side}_scale_rule", "The rule of its scale; empty likewise."),
            text(f"{side}_groups", "What shares a scale: 1d or 2d; empty likewise."),
        )
    ),
    text("rotation", "dht or rht; empty: none."),
    count("rotation_size", "Size of the Hadamard matrix; empty: no rotation.", unit=""),
    text("rotation_signs", "rht: fixed, redrawn or mismatched; empty: no random signs."),
    count("num_batches", "Batches behind the error of one layer."),
    count("num_layers", "Layers behind the row."),
    *(column for spread, _ in MEASURES for column in spread.columns()),
)
"""Columns of both tables."""


def build_errors(inputs: TableInputs, study: Study) -> pd.DataFrame:
    """One row a step, arm and GEMM of an experiment, in the order of the configuration.

    Raises:
        ArtifactError: an experiment's errors are of arms that it does not name.
    """
    if inputs.mxfp4 is None:
        return frame([], COLUMNS)
    found = {one.experiment: one for one in inputs.diagnostics}
    rows: list[dict[str, Any]] = []
    for name, experiment in inputs.mxfp4.experiments.items():
        if not isinstance(experiment, DiagnosticsExperiment) or experiment.study != study:
            continue
        if name in found:
            rows += _experiment_rows(inputs, experiment, found[name])
    return frame(rows, COLUMNS)


def _experiment_rows(
    inputs: TableInputs, experiment: DiagnosticsExperiment, found: Diagnostics
) -> list[dict[str, Any]]:
    assert inputs.mxfp4 is not None
    arms, gemms = [experiment.baseline, *experiment.arms], list(GEMMS)
    unknown = sorted({error.arm for error in found.errors} - set(arms))
    if unknown:
        raise ArtifactError(
            f"the errors of experiment {found.experiment} are of arms that it does not name: "
            f"{', '.join(unknown)}; known: {', '.join(arms)}. Delete its file and rerun"
        )

    def place(error: ErrorStatistics) -> tuple[int, int, int]:
        return error.step, arms.index(error.arm), gemms.index(error.gemm)

    shared = {
        "experiment": found.experiment,
        "caption": inputs.mxfp4.caption,
        "num_parameters": known_parameters(inputs),
        "baseline": experiment.baseline,
        "seed": experiment.seed,
        "num_batches": found.num_batches,
    }
    ordered = sorted(found.errors, key=place)
    return [
        {**shared, **_row(inputs.mxfp4, list(layers))} for _, layers in groupby(ordered, key=place)
    ]


def _row(study: MXFP4, layers: Sequence[ErrorStatistics]) -> dict[str, Any]:
    one = layers[0]
    recipe = study.arms[one.arm]
    values: dict[str, Any] = {
        "step": one.step,
        "arm": one.arm,
        "gemm": one.gemm,
        "precision": recipe.precision,
        **_recipe_values(one.gemm, recipe.gemms.get(one.gemm)),
        "num_layers": len(layers),
    }
    for spread, of in MEASURES:
        known = {index: of(layer) for index, layer in enumerate(layers)}
        values |= spread.values({i: value for i, value in known.items() if value is not None})
    return values


def _recipe_values(letter: str, gemm: Gemm | None) -> dict[str, Any]:
    """What the arm does to this GEMM."""
    operands: Mapping[str, Operand | None] = dict(gemm.operands) if gemm else {}
    values: dict[str, Any] = {}
    for side, (name, _) in zip(SIDES, GEMMS[letter].operands, strict=True):
        operand = operands.get(name)
        values |= {
            f"{side}_operand": name,
            f"{side}_rounding": operand and operand.rounding,
            f"{side}_scale_rule": operand and operand.scale_rule,
            f"{side}_groups": operand and operand.groups,
        }
    rotation = gemm.rotation if gemm else None
    return {
        **values,
        "rotation": rotation and rotation.kind,
        "rotation_size": rotation and rotation.size,
        "rotation_signs": rotation.signs if isinstance(rotation, RandomizedHadamard) else None,
    }
