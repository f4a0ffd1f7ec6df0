"""`compaction_under_load.csv`: what a compaction does to others on the same engine.

Bystanders ask again and again, first alone and then while the compaction runs; a row is one of
these phases of one arm. Their latencies are the engine's own: a request's inter-token latency is
its decode time over its gaps, one mean gap a request, because a client on a busy machine sees
tokens late and in bundles. Percentiles pool the requests of all valid cells, by nearest rank. One
that so few requests have would be their maximum; it is left out, and the maximum stands beside.
More workers decode a summary sooner and slow others more, so the compaction's wall time and the
goodput of the whole engine stand in the same row.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from blockwise.compaction.records import CellRecord, RequestRecord
from blockwise.config.choices import Study
from blockwise.tables.columns import Column, ColumnKind, count, frame, text
from blockwise.tables.compaction.parts import identity, measures
from blockwise.tables.compaction.parts.comparison import LABELS, Arm, compared_arms, label_values
from blockwise.tables.compaction.parts.percentiles import Percentiles
from blockwise.tables.compaction.parts.summaries import COMPACTION_OUTPUT, SPREAD, Measure, Ratio
from blockwise.tables.inputs import TableInputs

ALONE, DURING = "alone", "during"


def _lost_cached_tokens(record: CellRecord) -> float | None:
    """What bystanders find less in the cache during the compaction than alone, a request."""
    before: dict[int | None, int] = {}
    lost = []
    for request in record.requests:
        if request.role != "bystander" or request.cached_tokens is None:
            continue
        if _phase(request) == ALONE:
            before[request.worker_index] = request.cached_tokens
        elif request.worker_index in before:
            lost.append(max(0, before[request.worker_index] - request.cached_tokens))
    return measures.mean_of(lost)


def _goodput_tokens_per_s(record: CellRecord) -> float | None:
    """Tokens of bystanders' requests that ended in the compaction's window, and its own output.

    The window opens with the first worker's request and is as long as the compaction's wall time.
    """
    workers = measures.workers(record)
    if not workers or len(record.compactions) != 1:
        return None
    (compaction,) = record.compactions
    begin_s = min(request.start_s for request in workers)
    bystanders = [
        request
        for request in record.requests
        if request.role == "bystander"
        and begin_s <= request.start_s + request.wall_s <= begin_s + compaction.wall_s
    ]
    num_tokens = measures.tally(bystanders).completion_tokens + compaction.output_tokens
    return num_tokens / compaction.wall_s


LATENCIES: tuple[tuple[Percentiles, Callable[[RequestRecord], float | None]], ...] = (
    (
        Percentiles(
            "ttft",
            "Time to the first token of a bystander's request, by the engine's clock where it "
            "reports it (engine_cards.ttft_source)",
            (50, 95, 99),
        ),
        lambda request: request.ttft_s,
    ),
    (
        Percentiles(
            "itl",
            "Inter-token latency of a bystander's request: its decode time by the engine's clock "
            "over its gaps, the mean gap inside one request",
            (50, 95, 99),
        ),
        measures.mean_gap_s,
    ),
    (
        Percentiles(
            "queue",
            "Time a bystander's request waited in the engine's queue, by the engine's clock",
            (50, 95),
        ),
        lambda request: request.queue_s,
    ),
)
"""Of bystanders' requests, each with what it is of one; None: none, or none is reported."""
MEASURES = (
    Measure(
        "compaction_wall",
        "_s",
        "s",
        ColumnKind.TIMED,
        "First worker request to last answer; empty for the phase alone",
        measures.compaction_wall_s,
    ),
    Measure(
        "goodput",
        "_tokens_per_s",
        "tokens/s",
        ColumnKind.TIMED,
        "Tokens decoded for everybody during the compaction (its output, and the bystanders' "
        "requests that ended in it) over its wall time; empty for the phase alone",
        _goodput_tokens_per_s,
    ),
    Measure(
        "stall",
        "_s",
        "s",
        ColumnKind.TIMED,
        "Time the agent waited for the compaction; of a background arm what is left when it is "
        "due. Empty for the phase alone",
        measures.compaction_stall_s,
    ),
    Measure(
        "lost_cached",
        "_tokens",
        "tokens",
        ColumnKind.TIMED,
        "Prompt tokens of bystanders that were cached before the compaction and computed again "
        "during it, a request. Empty for the phase alone",
        _lost_cached_tokens,
    ),
    replace(COMPACTION_OUTPUT, statistics=SPREAD),
)


def _mean_ttft_s(record: CellRecord) -> float | None:
    """Mean over the bystanders' requests of the phase during the compaction."""
    return measures.mean_of(
        request.ttft_s
        for request in record.requests
        if request.role == "bystander" and _phase(request) == DURING and request.ttft_s is not None
    )


TTFT_RATIO = Ratio(
    "ttft_over_plain",
    "Time to first token of bystanders during the compaction, mean over their requests, over that "
    "in the arm that differs by the workers' priority alone, which is 0",
    _mean_ttft_s,
    reference_over_own=False,
)

COLUMNS: tuple[Column, ...] = (
    *LABELS,
    identity.HISTORY,
    count("num_bystanders", "Other sessions on the same engine, each with one request at a time."),
    count("num_history_blocks", "History blocks that the compaction was cut into; 1: sequential."),
    count("max_concurrent_workers", "Most workers sent at once; empty: all."),
    *identity.DISPATCH,
    text("phase", "alone: before the compaction starts; during: from its start to its end."),
    *(column for percentiles, _ in LATENCIES for column in percentiles.columns()),
    *(column for measure in MEASURES for column in measure.columns()),
    *TTFT_RATIO.columns(),
    count(
        "num_preemptions",
        "Requests that the engine preempted, in all valid cells; empty for the phase alone, which "
        "the engine's counter does not tell apart.",
        ColumnKind.TIMED,
    ),
)


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row a phase and number of history blocks of an arm under one load.

    Raises:
        ArtifactError: a timing block holds an arm twice, or an arm mixes settings.
    """
    comparisons = compared_arms(inputs.cells, Study.UNDER_LOAD)
    return frame(
        [
            _row(part, num_blocks, phase, _plain_of(arm, arms))
            for arms in comparisons
            for arm in arms
            for num_blocks, part in _by_num_blocks(arm)
            for phase in (ALONE, DURING)
        ],
        COLUMNS,
    )


def _by_num_blocks(arm: Arm) -> list[tuple[int, Arm]]:
    """An arm parted by the history blocks it realised: turns do not divide evenly by B."""
    parts: dict[int, list[Any]] = {}
    for cell in arm.cells:
        num_blocks = sum(compaction.num_blocks for compaction in cell.record.compactions)
        parts.setdefault(num_blocks, []).append(cell)
    return [
        (num_blocks, Arm.of(parts[num_blocks], arm.same_blocks_as)) for num_blocks in sorted(parts)
    ]


def _plain_of(arm: Arm, arms: Sequence[Arm]) -> Arm | None:
    """The arm whose workers have priority 0; None for such an arm itself."""
    if arm.settings.worker_priority == 0:
        return None
    own = arm.settings.model_copy(update={"worker_priority": 0})
    return next((one for one in arms if one.settings == own and _has_same_name(one, arm)), None)


def _has_same_name(one: Arm, other: Arm) -> bool:
    key = (one.name, one.block_size_tokens, one.cells[0].record.spec.mode)
    return key == (other.name, other.block_size_tokens, other.cells[0].record.spec.mode)


def _row(arm: Arm, num_blocks: int, phase: str, plain: Arm | None) -> dict[str, Any]:
    records = list(arm.valid.values())
    requests = [
        request
        for record in records
        for request in record.requests
        if request.role == "bystander" and _phase(request) == phase
    ]
    row = {
        **label_values(arm),
        "history_tokens": arm.settings.history_tokens,
        "num_bystanders": arm.settings.num_bystanders,
        "num_history_blocks": num_blocks,
        "max_concurrent_workers": arm.settings.max_concurrent_workers,
        **identity.dispatch_values(arm.cells[0]),
        "phase": phase,
        "num_preemptions": _num_preemptions(records) if phase == DURING else None,
    }
    for percentiles, latency in LATENCIES:
        row |= percentiles.values(map(latency, requests))
    for measure in MEASURES:
        row |= measure.values(records if phase == DURING else [])
    reference = plain.valid if plain is not None and phase == DURING else {}
    return row | TTFT_RATIO.values(arm.valid if reference else {}, reference)


def _phase(request: RequestRecord) -> str:
    return ALONE if request.compaction_index is None else DURING


def _num_preemptions(records: Sequence[CellRecord]) -> int | None:
    """Preemptions of all cells; None where one of them does not tell."""
    known = [record.num_preemptions for record in records if record.num_preemptions is not None]
    return sum(known) if known and len(known) == len(records) else None
