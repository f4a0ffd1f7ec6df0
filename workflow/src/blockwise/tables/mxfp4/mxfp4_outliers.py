"""`mxfp4_outliers.csv`: the error of Wgrad under outliers that are made to order.

Token outliers and channel means are what real operands have; here both are synthetic and of
known size, so that it shows where a deterministic and a randomized rotation differ. Operands are
drawn anew for each seed.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import pandas as pd

from blockwise.config.mxfp4 import OutlierExperiment
from blockwise.errors import ArtifactError
from blockwise.mxfp4.records import OutlierError, Outliers
from blockwise.tables.columns import Column, ColumnKind, count, frame, number, text, tokens
from blockwise.tables.inputs import TableInputs
from blockwise.tables.mxfp4.parts.spread import Spread
from blockwise.tables.mxfp4.parts.training import ARM, CAPTION, EXPERIMENT

PATTERNS = ("gaussian", "token_outliers", "channel_means")  # the order of rows
MEASURES = {
    "relative_error": Spread(
        "relative_error", "", "1", "Size of the error of dW over that of the float32 product"
    ),
    "underflow_frac": Spread(
        "underflow",
        "_frac",
        "1",
        "Share of the non-zero values of dy that became zero, as quantized",
    ),
}

COLUMNS: tuple[Column, ...] = (
    EXPERIMENT,
    CAPTION,
    ARM,
    text(
        "pattern",
        "gaussian: normal operands; token_outliers: some tokens of dy are larger by the size; "
        "channel_means: each channel of x is offset by about the size, of either sign.",
    ),
    number(
        "outlier_size",
        "Size of the outliers or means, in standard deviations; 0: there are none.",
        ColumnKind.EXACT,
        "1",
    ),
    number("outlier_token_frac", "Share of tokens that are made outliers.", ColumnKind.EXACT, "1"),
    tokens("num_tokens", "Tokens of the operands."),
    count("num_features", "Features of the operands."),
    *(column for spread in MEASURES.values() for column in spread.columns()),
)


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row an arm, pattern and size of an experiment.

    Raises:
        ArtifactError: an experiment's errors are of arms that it does not name.
    """
    if inputs.mxfp4 is None:
        return frame([], COLUMNS)
    found = {one.experiment: one for one in inputs.outliers}
    rows: list[dict[str, Any]] = []
    for name, experiment in inputs.mxfp4.experiments.items():
        if isinstance(experiment, OutlierExperiment) and name in found:
            rows += _rows(inputs.mxfp4.caption, experiment, found[name])
    return frame(rows, COLUMNS)


def _rows(caption: str, experiment: OutlierExperiment, found: Outliers) -> list[dict[str, Any]]:
    unknown = sorted({error.arm for error in found.errors} - set(experiment.arms))
    if unknown:
        raise ArtifactError(
            f"the errors of experiment {found.experiment} are of arms that it does not name: "
            f"{', '.join(unknown)}; known: {', '.join(experiment.arms)}. Delete its file and rerun"
        )

    def place(error: OutlierError) -> tuple[int, int, float]:
        return PATTERNS.index(error.pattern), experiment.arms.index(error.arm), error.size

    shared = {
        "experiment": found.experiment,
        "caption": caption,
        "outlier_token_frac": experiment.outlier_token_frac,
        "num_tokens": experiment.num_tokens,
        "num_features": experiment.num_features,
    }
    ordered = sorted(found.errors, key=place)
    return [{**shared, **_row(list(seeds))} for _, seeds in groupby(ordered, key=place)]


def _row(seeds: Sequence[OutlierError]) -> dict[str, Any]:
    values: dict[str, Any] = {
        "arm": seeds[0].arm,
        "pattern": seeds[0].pattern,
        "outlier_size": seeds[0].size,
    }
    for name, spread in MEASURES.items():
        by_seed: Mapping[int, float] = {one.seed: getattr(one, name) for one in seeds}
        values |= spread.values(by_seed)
    return values
