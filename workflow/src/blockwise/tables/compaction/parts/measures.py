"""Quantities of one cell that more than one table shows, each defined once.

All of them are sums and ratios of what the record holds; nothing is estimated. A value that
the record cannot give (an engine that reports no cached tokens, a share of nothing) is
`None`, never zero.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from blockwise.compaction.records import CellRecord, RequestRecord


@dataclass(frozen=True)
class TokenTally:
    """Tokens of a set of requests. Units: tokens."""

    prompt_tokens: int
    cached_tokens: int | None  # None: the engine does not report them
    completion_tokens: int  # thinking included

    @property
    def uncached_tokens(self) -> int | None:
        """Prompt tokens that the engine had to compute."""
        return None if self.cached_tokens is None else self.prompt_tokens - self.cached_tokens


def tally(requests: Iterable[RequestRecord]) -> TokenTally:
    """Add up the tokens of requests; one unknown cached count makes the sum unknown."""
    listed = list(requests)
    cached = [request.cached_tokens for request in listed if request.cached_tokens is not None]
    return TokenTally(
        prompt_tokens=sum(request.prompt_tokens for request in listed),
        cached_tokens=sum(cached) if len(cached) == len(listed) else None,
        completion_tokens=sum(request.completion_tokens for request in listed),
    )


def total_tokens(record: CellRecord) -> int:
    """Prompt and completion tokens of every request of the cell, cached ones included."""
    spent = tally(record.requests)
    return spent.prompt_tokens + spent.completion_tokens


def end_to_end_tokens_per_s(record: CellRecord) -> float:
    """Completion tokens of all requests over the cell's wall time.

    It rises with the decode volume by construction: no claim of speed rests on it.
    """
    return tally(record.requests).completion_tokens / record.wall_s


def working_s(record: CellRecord) -> float:
    """Wall time of the cell without its waits for tools."""
    return record.wall_s - record.waited_s


def ahead_frac(record: CellRecord) -> float | None:
    """Share of workers sent before their compaction was due; `None` without a worker."""
    num_workers = len(workers(record))
    num_ahead = sum(compaction.num_ahead_workers for compaction in record.compactions)
    return num_ahead / num_workers if num_workers else None


def compaction_output_tokens(record: CellRecord) -> int:
    """Tokens decoded by all workers of all compactions, thinking included."""
    return sum(compaction.output_tokens for compaction in record.compactions)


def compaction_wall_s(record: CellRecord) -> float:
    """Time from first request to last answer, over all compactions."""
    return math.fsum(compaction.wall_s for compaction in record.compactions)


def compaction_stall_s(record: CellRecord) -> float:
    """Time that the agent waited for a new history, client work included."""
    return math.fsum(compaction.stall_s for compaction in record.compactions)


def compaction_stall_frac(record: CellRecord) -> float:
    """Share of the cell's wall time that the agent waited for compaction."""
    return compaction_stall_s(record) / record.wall_s


def compaction_decode_tokens_per_s(record: CellRecord) -> float | None:
    """Tokens decoded by compactions over their wall time; `None` without a compaction."""
    wall_s = compaction_wall_s(record)
    return compaction_output_tokens(record) / wall_s if wall_s > 0 else None


def ttft_after_compaction_s(record: CellRecord) -> float | None:
    """Mean first-token latency of the agent's next request after a compaction."""
    latencies = [item.ttft_after_s for item in record.compactions if item.ttft_after_s is not None]
    return mean_of(latencies)


def length_finish_frac(record: CellRecord) -> float | None:
    """Share of workers that stopped at their budget; `None` without a worker."""
    num_cut, num_workers = length_finishes([record])
    return num_cut / num_workers if num_workers else None


def length_finishes(records: Iterable[CellRecord]) -> tuple[int, int]:
    """Workers that stopped at their budget, and all workers, of some cells."""
    listed = list(records)
    num_cut = sum(done.num_length_finishes for record in listed for done in record.compactions)
    return num_cut, sum(len(workers(record)) for record in listed)


def mean_gap_s(request: RequestRecord) -> float | None:
    """Mean time between the tokens of a request, by the engine's clock; `None`: not reported."""
    if request.decode_s is None or request.completion_tokens < 2:
        return None
    return request.decode_s / (request.completion_tokens - 1)


def worker_tpot_s(record: CellRecord) -> float | None:
    """Mean time per output token of the workers after their first, by the engine's clock.

    Every worker weighs the same; one that decoded a single token has none. `None` where the
    engine reports no decode time.
    """
    gaps = [mean_gap_s(request) for request in workers(record)]
    return mean_of(gap for gap in gaps if gap is not None)


def worker_uncached_tokens(record: CellRecord) -> int | None:
    """Prompt tokens of all workers that the engine had to compute."""
    return tally(workers(record)).uncached_tokens


def worker_mean_ttft_s(record: CellRecord) -> float | None:
    """Mean first-token latency over the workers."""
    return mean_of(request.ttft_s for request in workers(record))


def worker_max_ttft_s(record: CellRecord) -> float | None:
    """First-token latency of the last worker to start decoding."""
    return max((request.ttft_s for request in workers(record)), default=None)


def workers(record: CellRecord) -> list[RequestRecord]:
    """The requests of compaction workers, of all compactions."""
    return [request for request in record.requests if request.role == "worker"]


def percentile(values: Iterable[float], frac: float) -> float | None:
    """A value of the sample that the given share of it does not exceed; `None` of nothing.

    By nearest rank, so that nothing is interpolated: of few values a high percentile is the
    maximum, and their number must stand beside it.
    """
    listed = list(values)
    return float(np.quantile(listed, frac, method="inverted_cdf")) if listed else None


def geometric_mean(values: Iterable[float]) -> float:
    """Of one value or more, each above zero."""
    logarithms = [math.log(value) for value in values]
    return math.exp(math.fsum(logarithms) / len(logarithms))


def mean_of(values: Iterable[float]) -> float | None:
    """Arithmetic mean, independent of order; `None` of nothing."""
    listed = list(values)
    return math.fsum(listed) / len(listed) if listed else None
