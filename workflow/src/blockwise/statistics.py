"""Means and ratios with intervals that a handful of clusters can carry.

Observations inside a cluster (a timing block's repeats, one session's answers) share a
machine, a server start or a text, so they are no independent evidence: they are averaged
first and the interval is taken over the cluster means. At the 6 to 12 clusters that a
small run affords, the percentile bootstrap covers far too little; Student's t is exact
for normal cluster means and holds between 93% and 97% for the mild skew of wall times and
bounded scores (the tests simulate both). Ratios are formed inside a timing block only and
are treated on the log scale, where a speed-up and its reciprocal are the same statement.
Below six clusters the range and n say all there is to say: no interval is given.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit  # type: ignore[import-untyped]  # scipy ships no types

MIN_CLUSTERS = 6  # METHOD: fewer clusters get minimum, maximum and n, and no verdict
CONFIDENCE = 0.95  # the field's convention


@dataclass(frozen=True)
class Interval:
    """A mean over clusters, its confidence interval and its range.

    `minimum` and `maximum` are those of the cluster means. `low` and `high` are `None`
    below `MIN_CLUSTERS` clusters.
    """

    mean: float
    low: float | None
    high: float | None
    minimum: float
    maximum: float
    num_clusters: int
    num_values: int


def mean_interval(values: Sequence[float], clusters: Sequence[str]) -> Interval:
    """Mean of the cluster means with a 95% t interval.

    Every cluster weighs the same, however many repeats it holds.

    Args:
        values: one finite number an observation.
        clusters: the cluster of each observation, in the same order.

    Raises:
        ValueError: no value, a non-finite one, or lists of different lengths.
    """
    means = _cluster_means(values, clusters)
    mean = math.fsum(means) / len(means)
    low, high = _t_bounds(means, mean)
    return Interval(mean, low, high, min(means), max(means), len(means), len(values))


def paired_ratio(
    numerator: Mapping[str, float],
    denominator: Mapping[str, float],
    clusters: Mapping[str, str] | None = None,
) -> Interval | None:
    """Geometric mean of ratios, each formed inside one timing block.

    Args:
        numerator: value of one arm by timing block id, each above zero.
        denominator: value of the other arm by timing block id, each above zero.
        clusters: cluster of each timing block, where repeats share one; by default every
            timing block is its own.

    Returns:
        The interval, computed on log ratios; `None` when no timing block holds both arms.

    Raises:
        ValueError: a value that is not a finite number above zero.
    """
    shared = sorted(numerator.keys() & denominator.keys())
    if not shared:
        return None
    for timing_block_id in shared:
        for value in (numerator[timing_block_id], denominator[timing_block_id]):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(
                    f"timing block {timing_block_id}: {value} cannot enter a ratio; "
                    "values must be finite and above zero"
                )
    log_ratios = [math.log(numerator[key] / denominator[key]) for key in shared]
    log = mean_interval(log_ratios, [clusters[key] if clusters else key for key in shared])
    return Interval(
        mean=math.exp(log.mean),
        low=None if log.low is None else math.exp(log.low),
        high=None if log.high is None else math.exp(log.high),
        minimum=math.exp(log.minimum),
        maximum=math.exp(log.maximum),
        num_clusters=log.num_clusters,
        num_values=log.num_values,
    )


def _cluster_means(values: Sequence[float], clusters: Iterable[str]) -> list[float]:
    """Means by cluster, in order of the cluster's name, so that input order is irrelevant."""
    if not values:
        raise ValueError("0 values given; a mean needs at least 1")
    members: dict[str, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        if not math.isfinite(value):
            raise ValueError(f"cluster {cluster}: {value} is not finite; leave it out and say so")
        members.setdefault(cluster, []).append(value)
    return [math.fsum(members[name]) / len(members[name]) for name in sorted(members)]


def _t_bounds(means: Sequence[float], mean: float) -> tuple[float | None, float | None]:
    """Bounds of Student's t interval over cluster means; none below `MIN_CLUSTERS`."""
    num_clusters = len(means)
    if num_clusters < MIN_CLUSTERS:
        return None, None
    variance = math.fsum((value - mean) ** 2 for value in means) / (num_clusters - 1)
    quantile = float(stdtrit(num_clusters - 1, (1 + CONFIDENCE) / 2))
    margin = quantile * math.sqrt(variance / num_clusters)
    return mean - margin, mean + margin
