"""Means, ratios and spreads with intervals that a handful of observations can carry.

Observations inside a cluster (a timing block's repeats, one session's answers) share a
machine, a server start or a text, so they are no independent evidence: they are averaged
first and the interval is taken over the cluster means. At the 6 to 12 clusters that a
small run affords, the bootstrap of clusters covers too little (under 90% at six, decision 0022);
Student's t is exact for normal cluster means and holds between 93% and 97% for the mild skew of
wall times (the tests simulate it). Ratios are formed inside a timing block only and are treated on
the log scale, where a speed-up and its reciprocal are the same statement. Sizes whose clusters
differ more get no interval, and scores between 0 and 1 have one of their own (`proportions`). Below
six clusters the range and n say all there is to say: no interval is given.

How much the repeats of one input differ is no mean: the coefficient of variation is a ratio of
moments, and the pairs behind a mean similarity share their members. Both are resampled by
repeats, never by pairs: a bias-corrected delete-one jackknife with Student's t, on 1/sqrt of
the spread, where its errors are about symmetric. Of the powers tried in simulation this one
keeps coverage flattest: the logarithm falls short under heavy tails, and 1/spread too often has
no upper bound. Below ten repeats, where repeats do not differ, and outside the range in which
the tests prove the coverage, no interval is given.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from scipy.special import stdtrit  # type: ignore[import-untyped]  # scipy ships no types

MIN_CLUSTERS = 6  # METHOD: fewer clusters get minimum, maximum and n, and no verdict
MIN_REPEATS = 10  # METHOD: similarity and variation of fewer repeats get no interval
PROVEN_CV = 0.5  # above, ten repeats do not show the tail: no upper bound of the variation
PROVEN_SIMILARITIES = (0.2, 0.9)  # mean similarities at which coverage is simulated
MAX_CLUSTER_CV = 0.3  # sizes that differ more are too skewed for Student's t at 6 to 12 clusters
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


@dataclass(frozen=True)
class PairedDifference:
    """A mean difference of two arms over shared clusters, with its interval and t statistic.

    `t` is the mean over its standard error, with one degree of freedom less than clusters. It is
    `None` where there is no interval, and where all differences are the same.
    """

    interval: Interval
    t: float | None


@dataclass(frozen=True)
class RepeatInterval:
    """How repeats of one input differ, with a confidence interval over repeats.

    `low` and `high` are both `None` below `MIN_REPEATS` repeats, where the repeats, or all but
    one of them, do not differ, and where coverage is not proven. One of them is `None` where the
    repeats bound the value from one side only: a variation from below, a similarity from above.
    """

    value: float
    low: float | None
    high: float | None
    num_repeats: int


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


def size_interval(values: Sequence[float], clusters: Sequence[str]) -> Interval:
    """Mean of the cluster means of sizes (times, tokens, counts), with a 95% t interval.

    Sizes are skewed as much as they differ. Log-normal ones of a coefficient of variation of 0.5
    are covered in 92% of samples, of 1 in 86%, so clusters that differ by more than
    `MAX_CLUSTER_CV` get none: no more than 7% of samples of any spread then have one that misses.

    Args:
        values: one number not below zero an observation.
        clusters: the cluster of each observation, in the same order.

    Raises:
        ValueError: as `mean_interval`.
    """
    interval = mean_interval(values, clusters)
    if interval.low is None or interval.high is None:
        return interval
    error = standard_error(interval.low, interval.high, interval.num_clusters)
    if error * math.sqrt(interval.num_clusters) > MAX_CLUSTER_CV * interval.mean:
        return replace(interval, low=None, high=None)
    return interval


def paired_difference(
    own: Mapping[str, float], reference: Mapping[str, float]
) -> PairedDifference | None:
    """Mean of differences, each formed inside one cluster, with a 95% t interval.

    What the arms of a cluster share (a seed's start and data, say) cancels in its difference.

    Args:
        own: value of one arm by cluster, each finite.
        reference: value of the other arm by cluster, each finite.

    Returns:
        The difference `own - reference`; `None` when no cluster holds both arms.

    Raises:
        ValueError: a value that is not finite.
    """
    shared = sorted(own.keys() & reference.keys())
    if not shared:
        return None
    interval = mean_interval([own[name] - reference[name] for name in shared], shared)
    if interval.low is None or interval.high is None or interval.low == interval.high:
        return PairedDifference(interval, None)
    error = standard_error(interval.low, interval.high, interval.num_clusters)
    return PairedDifference(interval, interval.mean / error)


def standard_error(low: float, high: float, num_clusters: int) -> float:
    """Standard error of the mean that a 95% t interval over so many clusters is around."""
    return (high - low) / 2 / _t_quantile(num_clusters)


def independent_difference(own: Interval, other: Interval) -> tuple[float, float, float] | None:
    """Difference of two means over different clusters, with Welch's 95% interval.

    Args:
        own: an interval of `mean_interval`.
        other: another, of clusters that have nothing to do with its own (another run's).

    Returns:
        `own - other`, its lower and its upper end; `None` where one of them has no interval.
    """
    if own.low is None or own.high is None or other.low is None or other.high is None:
        return None
    variances = [
        standard_error(own.low, own.high, own.num_clusters) ** 2,
        standard_error(other.low, other.high, other.num_clusters) ** 2,
    ]
    difference, variance = own.mean - other.mean, sum(variances)
    if variance == 0:
        return difference, difference, difference
    freedom = variance**2 / sum(
        part**2 / (one.num_clusters - 1) for part, one in zip(variances, (own, other), strict=True)
    )
    margin = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * math.sqrt(variance)
    return difference, difference - margin, difference + margin


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


def coefficient_of_variation(values: Sequence[float]) -> float:
    """Sample standard deviation (divisor n - 1) over the mean.

    Raises:
        ValueError: fewer than two values, a negative or non-finite one, or a mean of zero.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} values given; a coefficient of variation needs at least 2")
    for value in values:
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{value} is no size; values must be finite and not below zero")
    mean = math.fsum(values) / len(values)
    if mean == 0:
        raise ValueError("all values are zero; a coefficient of variation needs a mean above zero")
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return math.sqrt(variance) / mean


def cv_interval(values: Sequence[float]) -> RepeatInterval:
    """Coefficient of variation (CV) of the repeats of one input, with a 95% interval.

    At 10 repeats it covers 93% to 97% for log-normal lengths of a CV up to 0.6, also where a cap
    cuts off a tenth or a quarter of them (the tests simulate both). Of heavier tails so few repeats
    do not show the most: two-sided it would cover 91% at a CV of 0.85 and 71% at 1.7. So above
    `PROVEN_CV` it is open above and still a bound from below, and at no CV do more than 7% of
    samples have bounds that miss it. A sample's CV cannot exceed sqrt(n); one close to that may
    lie below its own interval.

    Args:
        values: one size above or at zero a repeat, e.g. an output length in tokens.

    Raises:
        ValueError: as `coefficient_of_variation`.
    """
    num_repeats = len(values)
    value = coefficient_of_variation(values)
    if num_repeats < MIN_REPEATS or max(Counter(values).values()) >= num_repeats - 1:
        return RepeatInterval(value, None, None, num_repeats)
    replicates = [
        coefficient_of_variation([*values[:index], *values[index + 1 :]])
        for index in range(num_repeats)
    ]
    low, high = _spread_bounds(value, replicates)
    return RepeatInterval(value, low, high if value <= PROVEN_CV else None, num_repeats)


def pairwise_mean_interval(similarities: Sequence[Sequence[float]]) -> RepeatInterval:
    """Mean similarity of two different repeats of one input, with a 95% interval.

    The spread is the mean distance, 1 - similarity. A repeat is left out with all of its pairs.

    At 10 repeats it covers 93% to 97% for unit vectors around a common direction and for counts
    of words, at mean cosines from 0.2 to 0.9 (the tests simulate both); outside
    `PROVEN_SIMILARITIES` there is none. Of texts that share hardly a word it would cover 98%,
    of nearly equal ones with a few outliers 92%.

    Args:
        similarities: symmetric matrix over repeats, at most 1; the diagonal is not read.

    Raises:
        ValueError: fewer than two repeats, a matrix that is not square, or a similarity that is
            not finite or above 1.
    """
    num_repeats = len(similarities)
    if num_repeats < 2:
        raise ValueError(f"{num_repeats} repeats given; a similarity needs at least 2")
    for index, row in enumerate(similarities):
        if len(row) != num_repeats:
            raise ValueError(f"row {index} has {len(row)} similarities, not {num_repeats}")
    everyone = range(num_repeats)
    distance = _mean_distance(similarities, everyone)
    least, most = PROVEN_SIMILARITIES
    if num_repeats < MIN_REPEATS or not least <= 1 - distance <= most:
        return RepeatInterval(1 - distance, None, None, num_repeats)
    replicates = [
        _mean_distance(similarities, [one for one in everyone if one != left_out])
        for left_out in everyone
    ]
    if min(replicates) == 0:
        return RepeatInterval(1 - distance, None, None, num_repeats)
    nearest, farthest = _spread_bounds(distance, replicates)
    low = None if farthest is None else 1 - farthest
    return RepeatInterval(1 - distance, low, 1 - nearest, num_repeats)


def _mean_distance(similarities: Sequence[Sequence[float]], members: Sequence[int]) -> float:
    """Mean of 1 - similarity over the pairs of some repeats."""
    distances = [1 - similarities[one][other] for one, other in combinations(members, 2)]
    for distance in distances:
        if not (math.isfinite(distance) and distance >= 0):
            raise ValueError(
                f"{1 - distance} is no similarity; it must be finite and at most 1. Leave out "
                "repeats that have none and say so"
            )
    return math.fsum(distances) / len(distances)


def _spread_bounds(value: float, replicates: Sequence[float]) -> tuple[float, float | None]:
    """Bounds of a spread from its delete-one replicates, all above zero; no upper one: `None`."""
    num_repeats = len(replicates)
    scaled = [replicate**-0.5 for replicate in replicates]
    mean = math.fsum(scaled) / num_repeats
    squares = math.fsum((one - mean) ** 2 for one in scaled)
    margin = _t_quantile(num_repeats) * math.sqrt(squares * (num_repeats - 1) / num_repeats)
    centre = num_repeats * value**-0.5 - (num_repeats - 1) * mean
    return (centre + margin) ** -2, (centre - margin) ** -2 if centre > margin else None


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
    margin = _t_quantile(num_clusters) * math.sqrt(variance / num_clusters)
    return mean - margin, mean + margin


def _t_quantile(num_observations: int) -> float:
    """How many standard errors a two-sided interval reaches to either side."""
    return float(stdtrit(num_observations - 1, (1 + CONFIDENCE) / 2))
