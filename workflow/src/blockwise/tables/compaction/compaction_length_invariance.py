"""`compaction_length_invariance.csv`: does a longer history get a longer summary?

The form of the paper's Table 1, where 48 times the input gave three times the output. The slope
of log output against log input says it in one number: 0 is a summary whose length ignores the
input, 1 one in proportion to it. It is fitted in each session and seed, over the lengths that
were realised. A cap that cuts summaries off makes any length invariant, so the share of
cut-off workers stands beside it.
"""

import math
from collections.abc import Sequence
from itertools import groupby
from statistics import fmean, linear_regression
from typing import Any

import pandas as pd

from blockwise.compaction.records import CellRecord
from blockwise.config.choices import Study
from blockwise.tables.columns import Column, ColumnKind, count, frame, number
from blockwise.tables.compaction.parts import measures
from blockwise.tables.compaction.parts.natural_volume import same_blocks
from blockwise.tables.compaction.parts.single_compactions import (
    GATED,
    INPUT,
    LABELS,
    NUM_CELLS,
    OUTPUT,
    OUTPUT_OVER_INPUT,
    THINKING,
    gated_values,
    grouped_cells,
    history_tokens_of,
    input_tokens,
    label_values,
)
from blockwise.tables.compaction.parts.summaries import (
    SESSION,
    cluster_of,
    statistic_words,
    summarise,
)
from blockwise.tables.inputs import LoadedCell, TableInputs

MIN_LENGTHS = 3  # a line through two points fits whatever they are
MEASURES = (INPUT, OUTPUT, OUTPUT_OVER_INPUT, THINKING)
ELASTICITY_MEANING = (
    "Slope of log output against log input over all lengths of the arm, the same in each of its "
    "rows; 0: length-invariant, 1: proportional"
)
ELASTICITY = {
    "output_elasticity": "mean",
    "output_elasticity_low": "low",
    "output_elasticity_high": "high",
    "output_elasticity_min": "min",
    "output_elasticity_max": "max",
}
"""Column of each statistic of the slope."""

COLUMNS: tuple[Column, ...] = (
    *LABELS,
    NUM_CELLS,
    *(column for measure in MEASURES for column in measure.columns()),
    *(
        number(
            name,
            f"{ELASTICITY_MEANING}: {statistic_words(statistic, SESSION)}; empty below "
            f"{MIN_LENGTHS} lengths.",
            ColumnKind.SAMPLED,
            "1",
        )
        for name, statistic in ELASTICITY.items()
    ),
    count("output_elasticity_num_clusters", "Sessions and seeds with a slope."),
    count("output_elasticity_num_lengths", "Fewest realised lengths behind one of the slopes."),
    *GATED,
)


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row an arm and length of an experiment, backbone, dataset and prompt.

    Raises:
        ArtifactError: a cell is no single compaction.
    """
    groups, slopes = [], []
    for arm in grouped_cells(inputs.cells, Study.LENGTH_INVARIANCE):
        lengths = [list(cells) for _, cells in groupby(arm, key=history_tokens_of)]
        groups += lengths
        slopes += [_elasticity([cell.record for cell in arm])] * len(lengths)
    return frame(list(map(_row, groups, slopes, same_blocks(groups))), COLUMNS)


def _row(
    cells: Sequence[LoadedCell], slope: dict[str, Any], same_blocks_as: str | None
) -> dict[str, Any]:
    row = {
        **label_values(cells[0]),
        "num_cells": len(cells),
        **slope,
        **gated_values(cells, same_blocks_as),
    }
    for measure in MEASURES:
        row |= measure.values(cell.record for cell in cells)
    return row


def _elasticity(records: Sequence[CellRecord]) -> dict[str, Any]:
    """Values of the elasticity columns over all lengths of one arm."""
    volumes: dict[str, dict[int, list[int]]] = {}  # output by cluster and realised input
    for record in records:
        by_input = volumes.setdefault(cluster_of(record), {})
        by_input.setdefault(input_tokens(record), []).append(
            measures.compaction_output_tokens(record)
        )
    fitted = {
        cluster: by_input
        for cluster, by_input in volumes.items()
        if len(by_input) >= MIN_LENGTHS and all(sum(outputs) for outputs in by_input.values())
    }
    statistics, num_clusters = summarise(
        [(_slope(by_input), cluster) for cluster, by_input in fitted.items()]
    )
    return {
        **{name: statistics[statistic] for name, statistic in ELASTICITY.items()},
        "output_elasticity_num_clusters": num_clusters,
        "output_elasticity_num_lengths": min(map(len, fitted.values()), default=0),
    }


def _slope(outputs_by_input: dict[int, list[int]]) -> float:
    """Least squares through the mean output of each length, both logarithms."""
    lengths = sorted(outputs_by_input)
    return linear_regression(
        [math.log(length) for length in lengths],
        [math.log(fmean(outputs_by_input[length])) for length in lengths],
    ).slope
