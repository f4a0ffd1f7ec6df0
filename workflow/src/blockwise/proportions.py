"""Intervals of scores between 0 and 1, and of their differences, over clusters.

Student's t ignores that a share cannot leave 0 to 1: at six clusters of ten answers its 95%
interval holds a share of 0.1 in 81% to 94% of samples, one of 0.02 in about half. Wilson's
interval does better with the two changes that survey statistics make: the number of answers is
the effective one (what the spread of the clusters says they are worth, as answers of one session
share a text), and the normal quantile becomes Student's. It is printed only where five answers'
worth of evidence stand on either side; the tests simulate that it then covers 93% to 97%, and
that no share of any size has a printed interval which misses it in more than 7% of samples.

Source: Wilson 1927; effective numbers after Korn and Graubard 1998, who put them into another
interval, which is too wide here; five on either side is Cochran's rule (1954).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from blockwise.statistics import Interval, mean_interval, standard_error

MIN_EFFECTIVE_ANSWERS = 5.0  # right ones, and wrong ones, that an interval of a share needs
MIN_DIFFERING_CLUSTERS = 5  # that an interval of a difference or a slope of shares needs
FAR_DIFFERENCE = 0.4  # from here on one of two shares is near its bound and the clusters are skewed
RESOLVED_DIFFERENCE = 0.7  # farther ones are not told apart: whole clusters stand at the bound
NO_INTERVAL = (
    f"fewer than {MIN_EFFECTIVE_ANSWERS:.0f} effective answers say yes or fewer than "
    f"{MIN_EFFECTIVE_ANSWERS:.0f} say no"
)


def share_interval(scores: Sequence[float], clusters: Sequence[str]) -> Interval:
    """Mean of the cluster means of scores, with a 95% interval inside 0 to 1.

    Args:
        scores: one of an answer, from 0 to 1.
        clusters: the cluster of each answer, in the same order.

    Returns:
        The interval; without bounds below `MIN_CLUSTERS` clusters, where the clusters do not
        differ, and where too little stands on one side (`NO_INTERVAL`).

    Raises:
        ValueError: no score, one outside 0 to 1, or lists of different lengths.
    """
    for score in scores:
        if not 0 <= score <= 1:
            raise ValueError(f"{score} is no score; it must lie between 0 and 1")
    interval = mean_interval(scores, clusters)
    unbounded = replace(interval, low=None, high=None)
    if interval.low is None or interval.high is None or interval.low == interval.high:
        return unbounded
    error = standard_error(interval.low, interval.high, interval.num_clusters)
    quantile = (interval.high - interval.low) / 2 / error
    share, rarer = interval.mean, min(interval.mean, 1 - interval.mean)
    effective = share * (1 - share) / error**2
    if min(effective, interval.num_values) * rarer < MIN_EFFECTIVE_ANSWERS:
        return unbounded
    pull = quantile**2 / effective
    centre = (share + pull / 2) / (1 + pull)
    margin = math.sqrt(share * (1 - share) * pull + pull**2 / 4) / (1 + pull)
    return replace(interval, low=centre - margin, high=centre + margin)


def share_difference_interval(differences: Sequence[float], clusters: Sequence[str]) -> Interval:
    """Mean of the cluster means of differences of two scores, with a 95% t interval.

    Each difference is formed on one question, so what the question and its text do to both
    cancels. Where most clusters show none, their spread says nothing of the rest. Of a far
    difference the interval also holds every cluster mean: the range of six holds their median in
    31 of 32 samples of any shape, while t would miss a mean in up to 8% (decision 0066). Beyond
    `RESOLVED_DIFFERENCE` whole clusters stand at the bound; the interval then reaches from there,
    or from nearer zero, to 1.

    Args:
        differences: one of a question.
        clusters: the cluster of each question, in the same order.

    Returns:
        The interval; without bounds below `MIN_CLUSTERS` clusters, and where fewer than
        `MIN_DIFFERING_CLUSTERS` of them show a difference at all.

    Raises:
        ValueError: as `mean_interval`.
    """
    interval = mean_interval(differences, clusters)
    differing = {one for value, one in zip(differences, clusters, strict=True) if value != 0}
    if len(differing) < MIN_DIFFERING_CLUSTERS:
        return replace(interval, low=None, high=None)
    if interval.low is None or interval.high is None or abs(interval.mean) < FAR_DIFFERENCE:
        return interval
    held = [interval.low, interval.high, interval.minimum, interval.maximum]
    if abs(interval.mean) > RESOLVED_DIFFERENCE:
        held += [math.copysign(end, interval.mean) for end in (RESOLVED_DIFFERENCE, 1.0)]
    return replace(interval, low=min(held), high=max(held))


def share_slope_interval(slopes: Mapping[str, float]) -> Interval:
    """Mean of slopes of scores, each fitted inside one cluster, with a 95% t interval.

    Of a model that hardly ever answers right most clusters have a slope of exactly zero, and t over
    all of them would miss the mean slope in 12% of samples.

    Args:
        slopes: by cluster.

    Returns:
        The interval; without bounds below `MIN_CLUSTERS` clusters, and where fewer than
        `MIN_DIFFERING_CLUSTERS` of them have a slope at all.

    Raises:
        ValueError: as `mean_interval`.
    """
    interval = mean_interval([*slopes.values()], [*slopes])
    if sum(slope != 0 for slope in slopes.values()) < MIN_DIFFERING_CLUSTERS:
        return replace(interval, low=None, high=None)
    return interval
