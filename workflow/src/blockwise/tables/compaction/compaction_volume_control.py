"""`compaction_volume_control.csv`: does the prompt, or the block size, set the volume?

The form of the paper's Table 10: output over input for a ladder of prompts, sequential and by
block size. Where a prompt names the share it asks for, the table says how far the summaries are
from it, signed and as a distance, because errors of both signs cancel in a mean. A level does not
say who steers. So each row also has the response of its arm: how the volume follows the ladder, and
how it follows the number of history blocks.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from blockwise.compaction.records import CellRecord
from blockwise.config.arms import SEQUENTIAL
from blockwise.config.choices import Study
from blockwise.statistics import coefficient_of_variation
from blockwise.tables.columns import Column, ColumnKind, frame, number
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
    label_values,
    output_over_input_frac,
)
from blockwise.tables.compaction.parts.summaries import Measure
from blockwise.tables.compaction.parts.volume_response import BLOCKS_RESPONSE, LADDER_RESPONSE
from blockwise.tables.inputs import LoadedCell, TableInputs

MEASURES = (OUTPUT_OVER_INPUT, OUTPUT, INPUT, THINKING)


def _target_errors(target_frac: float | None) -> tuple[Measure, Measure]:
    """How far a volume is from the share asked for: signed, and as a distance."""

    def error(record: CellRecord) -> float | None:
        return None if target_frac is None else output_over_input_frac(record) / target_frac - 1

    def distance(record: CellRecord) -> float | None:
        signed = error(record)
        return None if signed is None else abs(signed)

    meaning = "Output over input, over target_frac, less 1; empty without a target"
    kind = ColumnKind.SAMPLED
    return (
        Measure("target_error", "_frac", "1", kind, meaning, error, is_size=False),
        Measure("target_absolute_error", "_frac", "1", kind, f"Size of: {meaning}", distance),
    )


COLUMNS: tuple[Column, ...] = (
    *LABELS,
    number(
        "target_frac",
        "Output over input that the prompt asks for; empty: it names none.",
        ColumnKind.EXACT,
        "1",
    ),
    NUM_CELLS,
    *(column for measure in MEASURES for column in measure.columns()),
    *(column for measure in _target_errors(None) for column in measure.columns()),
    number(
        "output_cv",
        "Coefficient of variation of output tokens over all cells of the row, sessions and "
        "repeats together; empty for one cell.",
        ColumnKind.SAMPLED,
        "1",
    ),
    *LADDER_RESPONSE.columns(),
    *BLOCKS_RESPONSE.columns(),
    *GATED,
)


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row an arm and length of an experiment, backbone, dataset and prompt.

    Raises:
        ArtifactError: a cell is no single compaction.
    """
    groups = grouped_cells(inputs.cells, Study.VOLUME_CONTROL, history_tokens_of)
    every = [cell for group in groups for cell in group]
    rows = [
        {
            **_row(cells, twin),
            **LADDER_RESPONSE.values([one for one in every if _is_same_arm(one, cells[0])]),
            **BLOCKS_RESPONSE.values([one for one in every if _is_same_layout(one, cells[0])]),
        }
        for cells, twin in zip(groups, same_blocks(groups), strict=True)
    ]
    return frame(rows, COLUMNS)


def _is_same_arm(one: LoadedCell, own: LoadedCell) -> bool:
    """Whether a cell may differ by its prompt alone."""
    return _place(one) == _place(own) and (one.record.arm, one.record.block_size_tokens) == (
        own.record.arm,
        own.record.block_size_tokens,
    )


def _is_same_layout(one: LoadedCell, own: LoadedCell) -> bool:
    """Whether a cell may differ by its block size alone; sequential has one history block."""
    if own.record.arm == SEQUENTIAL:
        return False
    is_arm = one.record.arm in {SEQUENTIAL, own.record.arm}
    return is_arm and (_place(one), one.prompt) == (_place(own), own.prompt)


def _place(cell: LoadedCell) -> tuple[str, str, int | None]:
    """What a response keeps fixed; the experiment that selects a cell does not matter."""
    return cell.backbone, cell.dataset, history_tokens_of(cell)


def _row(cells: Sequence[LoadedCell], same_blocks_as: str | None) -> dict[str, Any]:
    records = [cell.record for cell in cells]
    volumes = [measures.compaction_output_tokens(record) for record in records]
    target_frac = cells[0].target_frac
    row = {
        **label_values(cells[0]),
        "target_frac": target_frac,
        "num_cells": len(cells),
        "output_cv": coefficient_of_variation(volumes) if len(cells) > 1 and any(volumes) else None,
        **gated_values(cells, same_blocks_as),
    }
    for measure in (*MEASURES, *_target_errors(target_frac)):
        row |= measure.values(records)
    return row
