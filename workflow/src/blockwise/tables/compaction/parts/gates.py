"""Gates: what keeps a row of a measured table from carrying a verdict.

A number can be right and still say nothing: a cap chose the volume, every summary is one stock
phrase, the model answers no better than without the history. Each of these has a threshold, and
every row of a measured table names the first gate that it does not pass (METHOD, Gates).
"""

from collections.abc import Collection
from enum import StrEnum

from blockwise.statistics import MIN_CLUSTERS
from blockwise.tables.columns import Column, ColumnKind, text


class Gate(StrEnum):
    """Why no verdict may rest on a row; `ok`: one may."""

    OK = "ok"
    CAPPED = "capped"
    NOT_DIVERSE = "not_diverse"
    CANNOT_DO_TASK = "cannot_do_task"
    SAME_BLOCKS_AS = "same_blocks_as"
    TOO_FEW_STARTS = "too_few_starts"


PRECEDENCE = (
    Gate.CANNOT_DO_TASK,
    Gate.CAPPED,
    Gate.NOT_DIVERSE,
    Gate.SAME_BLOCKS_AS,
    Gate.TOO_FEW_STARTS,
)
"""Of several gates the first is named: from what another model, cap or prompt would have to mend
to what another block size or more runs would."""

MAX_LENGTH_FINISH_FRAC = 0.05
"""METHOD, Uncapped: above it the cap decides the volume of an arm, not the model."""

MIN_DISTINCT_SUMMARIES_FRAC = 0.5
"""METHOD, Diverse: below it an arm's summaries are stock phrases, whatever they stand for."""


def gate_column(
    name: str = "gate", of: str = "the row", kind: ColumnKind = ColumnKind.SAMPLED
) -> Column:
    """The column that names the gate of a row, or of a part of it."""
    return text(
        name,
        f"Why no verdict may rest on {of}; ok: one may. Of several, the first of: "
        "cannot_do_task (not shown that full history, or any arm compared, stands above closed "
        f"book), capped (length_finish_frac above {MAX_LENGTH_FINISH_FRAC}), not_diverse "
        f"(distinct_summaries_frac below {MIN_DISTINCT_SUMMARIES_FRAC}), same_blocks_as (another "
        f"arm's history blocks), too_few_starts (below {MIN_CLUSTERS} starts of the server behind "
        "times, which have a range and no interval).",
        kind,
    )


GATE = gate_column()


def gate_of(found: Collection[Gate]) -> Gate:
    """The one gate that a row names."""
    return next((gate for gate in PRECEDENCE if gate in found), Gate.OK)
