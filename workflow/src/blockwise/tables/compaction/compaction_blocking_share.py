"""`compaction_blocking_share.csv`: how much of a session the agent waits for compaction.

The form of the paper's Table 2: the share falls as the trigger threshold tau rises, because
compactions become rare. It is the stall of all compactions over the wall time of the session,
one share a session, so that long sessions weigh no more than short ones. The wait for one
compaction stands beside it: a sum over a session is no single wait.
"""

from typing import Any

import pandas as pd

from blockwise.config.choices import Study
from blockwise.tables.columns import Column, ColumnKind, frame
from blockwise.tables.compaction.parts import identity, measures
from blockwise.tables.compaction.parts.comparison import LABELS, Arm, compared_arms, label_values
from blockwise.tables.compaction.parts.summaries import (
    COMPACTION_OUTPUT,
    COMPACTION_STALL_FRAC,
    NUM_COMPACTIONS,
    WALL,
    Measure,
)
from blockwise.tables.inputs import TableInputs

MEASURES = (
    COMPACTION_STALL_FRAC,
    NUM_COMPACTIONS,
    WALL,
    Measure(
        "stall",
        "_s",
        "s",
        ColumnKind.TIMED,
        "Time of a session that the agent waited for compaction",
        measures.compaction_stall_s,
    ),
    Measure(
        "stall_of_one",
        "_s",
        "s",
        ColumnKind.TIMED,
        "Time that the agent waited for one compaction, mean over those of a session",
        lambda record: measures.mean_of(one.stall_s for one in record.compactions),
    ),
    COMPACTION_OUTPUT,
)
COLUMNS: tuple[Column, ...] = (
    *LABELS,
    identity.TAU,
    identity.TRANSCRIPT,
    *(column for measure in MEASURES for column in measure.columns()),
)


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row an arm of an experiment, backbone, dataset, prompt and tau.

    Raises:
        ArtifactError: a timing block holds an arm twice, or an arm mixes settings.
    """
    comparisons = compared_arms(inputs.cells, Study.BLOCKING_SHARE)
    return frame([_row(arm) for arms in comparisons for arm in arms], COLUMNS)


def _row(arm: Arm) -> dict[str, Any]:
    row = {
        **label_values(arm),
        "tau_tokens": arm.settings.tau_tokens,
        "transcript": arm.settings.transcript,
    }
    for measure in MEASURES:
        row |= measure.values(arm.valid.values())
    return row
