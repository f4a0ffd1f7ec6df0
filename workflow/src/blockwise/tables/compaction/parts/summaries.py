"""What a table says about one arm: statistics over clusters, and ratios inside timing blocks.

A measure is summed up over clusters, whose values are averaged first. The cluster of a time is
the server start: in four runs of one configuration the logarithm of a speed-up varied by 0.085 from
start to start, and its error inside a start was 0.009. So sessions and seeds of one start are one
value. The cluster of what the texts decide (tokens, counts) is the session and seed. Below six
clusters, and where sizes differ too much for one, the range and n stand without an interval. A
ratio is formed inside one timing block and treated on the log scale (METHOD, Statistics and Gates).
The measures that several tables show are defined here, so that they mean the same in each.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from blockwise.compaction.records import CellRecord
from blockwise.statistics import (
    CONFIDENCE,
    MAX_CLUSTER_CV,
    MIN_CLUSTERS,
    Interval,
    mean_interval,
    paired_ratio,
    size_interval,
)
from blockwise.tables.columns import Column, ColumnKind, count, number
from blockwise.tables.compaction.parts import measures

MEANS = ("mean", "low", "high", "min", "max")
SPREAD = ("median", "min", "max")
STATISTIC_MEANINGS = {
    "mean": "mean over clusters ({cluster})",
    "median": "median over clusters ({cluster})",
    "low": f"lower end of its {CONFIDENCE:.0%} interval, empty below {MIN_CLUSTERS} clusters",
    "high": f"upper end of its {CONFIDENCE:.0%} interval, empty below {MIN_CLUSTERS} clusters",
    "min": "smallest cluster mean",
    "max": "largest cluster mean",
}

SESSION, START = "session and seed", "server start"  # what a cluster is
BOUNDS = ("low", "high")
TOO_SKEWED = f" and where clusters differ by a CV above {MAX_CLUSTER_CV}, too skewed for one"


@dataclass(frozen=True)
class Measure:
    """A quantity of one cell that is summed up over clusters."""

    name: str
    suffix: str  # its unit as the end of a column name
    unit: str
    kind: ColumnKind
    meaning: str
    of: Callable[[CellRecord], float | None]
    statistics: tuple[str, ...] = MEANS
    is_size: bool = True  # never below zero

    def column(self, statistic: str) -> str:
        """Name of the column that holds one of the statistics."""
        return f"{self.name}_{statistic}{self.suffix}"

    def columns(self) -> list[Column]:
        """The statistics, and the clusters behind them."""
        return [
            *(
                number(
                    self.column(statistic),
                    f"{self.meaning}: {self._words(statistic)}.",
                    self.kind,
                    self.unit,
                )
                for statistic in self.statistics
            ),
            count(
                f"{self.name}_num_clusters",
                f"Clusters ({self._cluster}) behind the {self.column(self.statistics[0])} column.",
                ColumnKind.HOST,
            ),
        ]

    def values(self, records: Iterable[CellRecord]) -> dict[str, Any]:
        """The columns over these cells; a cell that has no such value takes no part."""
        cluster = start_of if self._cluster == START else cluster_of
        values = [(self.of(record), cluster(record)) for record in records]
        known = [(value, cluster) for value, cluster in values if value is not None]
        statistics, num_clusters = summarise(
            known, size_interval if self.is_size else mean_interval
        )
        return {
            **{self.column(name): statistics[name] for name in self.statistics},
            f"{self.name}_num_clusters": num_clusters,
        }

    @property
    def _cluster(self) -> str:
        return START if self.kind is ColumnKind.TIMED else SESSION

    def _words(self, statistic: str) -> str:
        words = statistic_words(statistic, self._cluster)
        return f"{words}{TOO_SKEWED}" if self.is_size and statistic in BOUNDS else words


@dataclass(frozen=True)
class Ratio:
    """A measure of one arm against another, formed inside timing blocks."""

    name: str
    meaning: str
    of: Callable[[CellRecord], float | None]  # unknown or zero: no part in it
    reference_over_own: bool  # a speed-up divides the reference's time by the arm's

    def columns(self) -> list[Column]:
        """The statistics, and the clusters and timing blocks behind them."""
        return [
            *(
                number(
                    f"{self.name}_{statistic}",
                    f"{self.meaning}, inside timing blocks; means and intervals are geometric: "
                    f"{statistic_words(statistic, START)}.",
                    ColumnKind.TIMED,
                    "1",
                )
                for statistic in MEANS
            ),
            count(
                f"{self.name}_num_clusters",
                f"Clusters ({START}) behind the ratio.",
                ColumnKind.HOST,
            ),
            count(
                f"{self.name}_num_timing_blocks",
                "Timing blocks behind the ratio: valid cells of both arms that may be compared.",
                ColumnKind.HOST,
            ),
        ]

    def values(
        self, own: Mapping[str, CellRecord], reference: Mapping[str, CellRecord]
    ) -> dict[str, Any]:
        """The columns over cells of two arms, by timing block."""
        clusters = {name: start_of(record) for name, record in own.items()}
        return self.values_of(self._known(own), self._known(reference), clusters)

    def values_of(
        self, own: Mapping[str, float], reference: Mapping[str, float], clusters: Mapping[str, str]
    ) -> dict[str, Any]:
        """The same over values of two arms, by timing block, each with its cluster."""
        above, below = (reference, own) if self.reference_over_own else (own, reference)
        interval = paired_ratio(above, below, clusters)
        statistics = _statistics(interval, None)
        return {
            **{f"{self.name}_{name}": statistics[name] for name in MEANS},
            f"{self.name}_num_clusters": interval.num_clusters if interval else 0,
            f"{self.name}_num_timing_blocks": interval.num_values if interval else 0,
        }

    def _known(self, records: Mapping[str, CellRecord]) -> dict[str, float]:
        values = {name: self.of(record) for name, record in records.items()}
        return {name: value for name, value in values.items() if value is not None and value > 0}


WALL = Measure("wall", "_s", "s", ColumnKind.TIMED, "Wall time of a session", lambda r: r.wall_s)
SPEEDUP = Ratio(
    "speedup",
    "Wall time of sequential over this arm's, above 1 is faster",
    lambda record: record.wall_s,
    reference_over_own=True,
)
COMPACTION_OUTPUT = Measure(
    "compaction_output",
    "_tokens",
    "tokens",
    ColumnKind.SAMPLED,
    "Tokens decoded by all compactions of a session, thinking included",
    measures.compaction_output_tokens,
)
NUM_COMPACTIONS = Measure(
    "num_compactions",
    "",
    "count",
    ColumnKind.SAMPLED,
    "Compactions a session",
    lambda record: len(record.compactions),
)
COMPACTION_STALL_FRAC = Measure(
    "compaction_stall",
    "_frac",
    "1",
    ColumnKind.TIMED,
    "Share of a session's wall time that the agent waited for compaction",
    measures.compaction_stall_frac,
)
COMPACTION_DECODE = Measure(
    "compaction_decode",
    "_tokens_per_s",
    "tokens/s",
    ColumnKind.TIMED,
    "Compaction output tokens over the wall time of compactions",
    measures.compaction_decode_tokens_per_s,
)


def cluster_of(record: CellRecord) -> str:
    """Repeats of one session and seed share a cluster: they are averaged first."""
    return f"{record.session_id} seed {record.seed}"


def start_of(record: CellRecord) -> str:
    """Everything that is timed on one server start shares a cluster.

    It is the index of the start, not the engine card: the timing blocks of a job that was killed
    and resumed are of two server processes and still one value (decision 0037).
    """
    return f"start {record.server_start}"


def statistic_words(statistic: str, cluster: str) -> str:
    """What a statistic is, for the data dictionary."""
    return STATISTIC_MEANINGS[statistic].format(cluster=cluster)


def summarise(
    values: Sequence[tuple[float, str]],
    interval_of: Callable[[Sequence[float], Sequence[str]], Interval] = mean_interval,
) -> tuple[dict[str, float | None], int]:
    """Every statistic of values that carry their cluster, and the number of clusters."""
    if not values:
        return _statistics(None, None), 0
    interval = interval_of([value for value, _ in values], [cluster for _, cluster in values])
    return _statistics(interval, _median_of_clusters(values)), interval.num_clusters


def _median_of_clusters(values: Sequence[tuple[float, str]]) -> float:
    """Median of the cluster means."""
    members: dict[str, list[float]] = {}
    for value, cluster in values:
        members.setdefault(cluster, []).append(value)
    return median(math.fsum(group) / len(group) for group in members.values())


def _statistics(interval: Interval | None, middle: float | None) -> dict[str, float | None]:
    if interval is None:
        return dict.fromkeys(STATISTIC_MEANINGS)
    return {
        "mean": interval.mean,
        "median": middle,
        "low": interval.low,
        "high": interval.high,
        "min": interval.minimum,
        "max": interval.maximum,
    }
