"""`compaction_eager.csv`: what it saves, and costs, to ask for summaries before they are due.

A study of ours. Sequential, parallel and eager arms play one session in one timing block; eager
sends the worker of a history block as soon as the block is closed, so its requests are those of
parallel. The agent's wait (stall), the session's wall time without its waits for tools and the work
in the background are three columns, since one is moved into another. What the agent pays is the
latency of its own requests while workers run, against the same turns of the parallel arm. An arm
that keeps its open history block decodes one summary less, and its history stays longer; volume
and length stand beside.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from blockwise.compaction.records import CellRecord, RequestRecord
from blockwise.config.arms import SEQUENTIAL, Mode
from blockwise.config.choices import Study
from blockwise.tables.columns import Column, ColumnKind, frame
from blockwise.tables.compaction.parts import identity, measures
from blockwise.tables.compaction.parts.comparison import (
    LABELS,
    Arm,
    compared_arms,
    label_values,
    pairs_of,
    sequential_of,
)
from blockwise.tables.compaction.parts.percentiles import Percentiles
from blockwise.tables.compaction.parts.summaries import (
    COMPACTION_OUTPUT,
    NUM_COMPACTIONS,
    Measure,
    Ratio,
    start_of,
)
from blockwise.tables.inputs import TableInputs

STALL = Percentiles(
    "stall", "Time the agent waited for a compaction, client included", (50, 95), "compactions"
)
MEASURES = (
    Measure(
        "working",
        "_s",
        "s",
        ColumnKind.TIMED,
        "Wall time of a session without its waits for tools",
        measures.working_s,
    ),
    Measure(
        "background",
        "_s",
        "s",
        ColumnKind.TIMED,
        "Time of workers' requests before their compaction was due, added up over workers",
        lambda record: sum(one.background_s for one in record.compactions),
    ),
    Measure(
        "ahead",
        "_frac",
        "1",
        ColumnKind.TIMED,
        "Share of workers that were sent before their compaction was due",
        measures.ahead_frac,
    ),
    Measure(
        "unused",
        "_tokens",
        "tokens",
        ColumnKind.TIMED,
        "Tokens decoded ahead that no compaction took",
        lambda record: measures.tally(_unused(record)).completion_tokens,
    ),
    Measure(
        "worker_uncached",
        "_tokens",
        "tokens",
        ColumnKind.TIMED,
        "Prompt tokens of all workers that the engine computed",
        measures.worker_uncached_tokens,
    ),
    Measure(
        "agent_uncached",
        "_tokens",
        "tokens",
        ColumnKind.TIMED,
        "Prompt tokens of the agent's turns that the engine computed",
        lambda record: measures.tally(_agent(record)).uncached_tokens,
    ),
    Measure(
        "history_after",
        "_tokens",
        "tokens",
        ColumnKind.SAMPLED,
        "Length of the history after a compaction",
        lambda record: measures.mean_of(one.history_after_tokens for one in record.compactions),
    ),
    COMPACTION_OUTPUT,
    NUM_COMPACTIONS,
)
STALL_RATIO = Ratio(
    "stall_over_sequential",
    "Mean stall of a compaction over that of sequential",
    lambda record: measures.mean_of(one.stall_s for one in record.compactions),
    reference_over_own=False,
)
WORKING_RATIO = Ratio(
    "working_over_parallel",
    "Wall time without waits for tools over that of parallel with the same layout, B and open "
    "history block, at equal volume",
    measures.working_s,
    reference_over_own=False,
)
AGENT_RATIOS: tuple[tuple[Ratio, Callable[[RequestRecord], float | None]], ...] = tuple(
    (
        Ratio(
            f"agent_{name}_over_parallel",
            f"{words} of the agent's turns during which workers run, over the same turns of that "
            "parallel arm; geometric mean over turns",
            lambda record: None,  # it is of turns, not of a record
            reference_over_own=False,
        ),
        latency,
    )
    for name, words, latency in (
        ("ttft", "Time to first token", lambda request: request.ttft_s),
        ("itl", "Time per token after the first, by the engine's clock", measures.mean_gap_s),
    )
)

COLUMNS: tuple[Column, ...] = (
    *LABELS,
    *identity.DISPATCH,
    identity.TAU,
    *STALL.columns(),
    *STALL_RATIO.columns(),
    *WORKING_RATIO.columns(),
    *(column for ratio, _ in AGENT_RATIOS for column in ratio.columns()),
    *(column for measure in MEASURES for column in measure.columns()),
)


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row an arm of an experiment, backbone, dataset, prompt, tau and wait for tools.

    Raises:
        ArtifactError: a timing block holds an arm twice, or an arm mixes settings.
    """
    return frame(
        [_row(arm, arms) for arms in compared_arms(inputs.cells, Study.EAGER) for arm in arms],
        COLUMNS,
    )


def _row(arm: Arm, arms: Sequence[Arm]) -> dict[str, Any]:
    records = arm.valid.values()
    row = {
        **label_values(arm),
        **identity.dispatch_values(arm.cells[0]),
        "tau_tokens": arm.settings.tau_tokens,
        **STALL.values(one.stall_s for record in records for one in record.compactions),
        **STALL_RATIO.values(*_shared(arm, sequential_of(arms))),
    }
    pairs = pairs_of(arm, _parallel_of(arm, arms))
    row |= WORKING_RATIO.values(pairs.own, pairs.reference)
    for ratio, latency in AGENT_RATIOS:
        row |= _agent_values(ratio, latency, pairs.own, pairs.reference)
    for measure in MEASURES:
        row |= measure.values(records)
    return row


def _mode(arm: Arm) -> Mode | None:
    return arm.cells[0].record.spec.mode


def _shared(
    own: Arm, reference: Arm | None
) -> tuple[Mapping[str, CellRecord], Mapping[str, CellRecord]]:
    """Valid cells of both arms in the same timing blocks, whatever they decoded."""
    if reference is None or own is reference:
        return {}, {}
    names = own.valid.keys() & reference.valid.keys()
    return {name: own.valid[name] for name in names}, {
        name: reference.valid[name] for name in names
    }


def _parallel_of(arm: Arm, arms: Sequence[Arm]) -> Arm | None:
    """The parallel arm that sends the same requests; None for sequential."""
    if arm.name == SEQUENTIAL:
        return None
    same = (
        one
        for one in arms
        if _mode(one) is Mode.PARALLEL
        and (one.name, one.block_size_tokens, one.settings.open_block)
        == (arm.name, arm.block_size_tokens, arm.settings.open_block)
    )
    return next(same, None)


def _agent_values(
    ratio: Ratio,
    latency: Callable[[RequestRecord], float | None],
    own: Mapping[str, CellRecord],
    reference: Mapping[str, CellRecord],
) -> dict[str, Any]:
    """A ratio of the agent's own latencies over the turns during which workers run."""
    above, below = {}, {}
    for name, record in own.items():
        turns = _busy_turns(record)
        pairs = [
            (latency(one), latency(other))
            for number, (one, other) in enumerate(
                zip(_agent(record), _agent(reference[name]), strict=False)
            )
            if number in turns and one.turn_index == other.turn_index
        ]
        known = [(one, other) for one, other in pairs if one and other]
        if known:
            above[name] = measures.geometric_mean(one for one, _ in known)
            below[name] = measures.geometric_mean(other for _, other in known)
    return ratio.values_of(above, below, {name: start_of(own[name]) for name in above})


def _busy_turns(record: CellRecord) -> set[int]:
    """Places of the agent's requests during which a worker's request runs."""
    spans = [
        (one.start_s, one.start_s + one.wall_s)
        for one in (*measures.workers(record), *_unused(record))
    ]
    return {
        number
        for number, turn in enumerate(_agent(record))
        if any(start < turn.start_s + turn.wall_s and turn.start_s < end for start, end in spans)
    }


def _agent(record: CellRecord) -> list[RequestRecord]:
    return [request for request in record.requests if request.role == "agent"]


def _unused(record: CellRecord) -> list[RequestRecord]:
    return [request for request in record.requests if request.role == "unused"]
