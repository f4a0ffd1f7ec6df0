"""`compaction_end_to_end.csv`: what an arm costs a whole session, and against sequential.

The form of the paper's Tables 7 and 8: wall time, throughput and volume by block size. They
stand apart here, each with its interval, because they mean different things: end-to-end
tokens/s rises with the decode volume by construction, and only wall time is a claim of
speed. A speed-up is formed inside one timing block, from two valid cells whose compactions
agree in number and in tokens decoded; where arms did not do the same work it is left out and
the row says why.
"""

from typing import Any

import pandas as pd

from blockwise.config.choices import Study
from blockwise.tables.columns import Column, ColumnKind, frame, text, tokens
from blockwise.tables.compaction.parts import identity, measures
from blockwise.tables.compaction.parts.comparison import (
    LABELS,
    Arm,
    Pairs,
    compared_arms,
    label_values,
    pairs_of,
    sequential_of,
    unequal_volume_column,
)
from blockwise.tables.compaction.parts.summaries import (
    COMPACTION_DECODE,
    COMPACTION_OUTPUT,
    COMPACTION_STALL_FRAC,
    NUM_COMPACTIONS,
    SPEEDUP,
    WALL,
    Measure,
)
from blockwise.tables.inputs import TableInputs

MEASURES = (
    Measure(
        "ttft_after_compaction",
        "_s",
        "s",
        ColumnKind.TIMED,
        "First-token latency of the agent's next request after a compaction",
        measures.ttft_after_compaction_s,
    ),
    Measure(
        "total",
        "_tokens",
        "tokens",
        ColumnKind.SAMPLED,
        "Total tokens spent: prompt and completion of all requests, cached included",
        measures.total_tokens,
    ),
    COMPACTION_OUTPUT,
    NUM_COMPACTIONS,
    COMPACTION_STALL_FRAC,
    Measure(
        "end_to_end",
        "_tokens_per_s",
        "tokens/s",
        ColumnKind.TIMED,
        "Completion tokens over wall time; rises with volume by construction, no claim of speed",
        measures.end_to_end_tokens_per_s,
    ),
    COMPACTION_DECODE,
)

SEQUENTIAL_STALL_FRAC = Measure(
    "sequential_stall",
    "_frac",
    "1",
    ColumnKind.TIMED,
    "Share of a session's wall time that sequential compaction takes, in the timing blocks of the "
    "speed-up",
    measures.compaction_stall_frac,
)

COLUMNS: tuple[Column, ...] = (
    *LABELS,
    identity.TAU,
    identity.TRANSCRIPT,
    tokens("answer_tokens", "Budget of one answer, which every answer decodes."),
    *WALL.columns(),
    *SPEEDUP.columns(),
    *SEQUENTIAL_STALL_FRAC.columns(),
    unequal_volume_column(),
    text("speedup_omitted_reason", "Why there is no speed-up.", ColumnKind.HOST),
    *(column for measure in MEASURES for column in measure.columns()),
)


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row an arm of an experiment, backbone, dataset, prompt and tau.

    An arm without any valid timing cell keeps its row: the count of invalid cells and empty
    statistics.

    Raises:
        ArtifactError: a timing block holds an arm twice, or an arm mixes settings.
    """
    rows = []
    for arms in compared_arms(inputs.cells, Study.END_TO_END):
        sequential = sequential_of(arms)
        rows += [_row(arm, pairs_of(arm, sequential)) for arm in arms]
    return frame(rows, COLUMNS)


def _row(arm: Arm, pairs: Pairs) -> dict[str, Any]:
    row = {
        **label_values(arm),
        "tau_tokens": arm.settings.tau_tokens,
        "transcript": arm.settings.transcript,
        "answer_tokens": arm.settings.answer_tokens,
        **SEQUENTIAL_STALL_FRAC.values(pairs.reference.values()),
        **SPEEDUP.values(pairs.own, pairs.reference),
        "num_unequal_volume_timing_blocks": pairs.num_unequal_volume,
        "speedup_omitted_reason": pairs.omitted_reason,
    }
    for measure in (WALL, *MEASURES):
        row |= measure.values(arm.valid.values())
    return row
