"""How strong the evidence of a point is: beside all other points, and for the reported effect.

The points of all claims are tested together, because among dozens of intervals some exclude their
threshold by chance (Benjamini and Hochberg). The power note says how many clusters would tell the
reported effect from the threshold, by the spread that was seen.
"""

import math
from collections.abc import Mapping, Sequence

from scipy.special import ndtri, stdtr  # type: ignore[import-untyped]  # ships no types
from scipy.stats import false_discovery_control  # type: ignore[import-untyped]

from blockwise.claims.points import Point
from blockwise.config.claims import Claim
from blockwise.statistics import CONFIDENCE, MIN_CLUSTERS, standard_error

MAX_FALSE_DISCOVERY_FRAC = 0.05
POWER = 0.8  # of the n that would resolve the reported effect


def survivors_of(
    claims: Mapping[str, Claim], found: Mapping[str, Sequence[Point]]
) -> frozenset[int]:
    """Ids of the points that survive the control of false discoveries.

    Args:
        claims: by their id.
        found: the points of each that a rule is asked of.
    """
    tested = [
        (point, p)
        for name, points in found.items()
        for point in points
        if (p := _p_value(point, claims[name])) is not None
    ]
    if not tested:
        return frozenset()
    adjusted = false_discovery_control([p for _, p in tested])
    return frozenset(
        id(point)
        for (point, _), q in zip(tested, adjusted, strict=True)
        if q <= MAX_FALSE_DISCOVERY_FRAC
    )


def margin_of(point: Point, claim: Claim) -> float:
    """How far inside the rule's bounds an estimate lies, on the scale of its interval.

    Negative outside; infinite where nothing was measured.
    """
    if point.value is None or (claim.metric.is_on_log_scale and point.value <= 0):
        return math.inf
    least, most = (end if math.isinf(end) else _scaled(end, claim) for end in claim.rule.bounds)
    value = _scaled(point.value, claim)
    return min(value - least, most - value)


def needed_clusters(point: Point, claim: Claim) -> int | None:
    """Clusters with which the reported effect would be told from the threshold, by this spread.

    A normal approximation: at a two-sided 5% and a power of 80%, and never below MIN_CLUSTERS.
    """
    spread, effect = _spread(point, claim), claim.reported.effect
    thresholds = _thresholds(claim)
    if spread is None or effect is None or len(thresholds) > 1:
        return None
    distance = abs(_scaled(effect, claim) - _scaled(thresholds[0], claim))
    if distance == 0:
        return None
    deviation = spread[1] * math.sqrt(point.num_clusters)
    reach = float(ndtri((1 + CONFIDENCE) / 2) + ndtri(POWER))
    return max(MIN_CLUSTERS, math.ceil((reach * deviation / distance) ** 2))


def _p_value(point: Point, claim: Claim) -> float | None:
    """Two-sided p of the threshold nearest to the estimate; None: the point is not tested."""
    spread = _spread(point, claim)
    if spread is None:
        return None
    centre, error = spread
    distance = min(abs(centre - _scaled(edge, claim)) for edge in _thresholds(claim))
    if error == 0:
        return 0.0 if distance else 1.0
    return float(2 * stdtr(point.num_clusters - 1, -distance / error))


def _spread(point: Point, claim: Claim) -> tuple[float, float] | None:
    """Centre and standard error on the scale where the interval is symmetric."""
    ends = [_scaled(end, claim) for end in (point.low, point.high) if end is not None]
    if not ends or point.num_clusters < MIN_CLUSTERS:
        return None
    if len(ends) == 1:  # open: the known end is as far from the estimate as the other would be
        if point.value is None:
            return None
        centre = _scaled(point.value, claim)
        ends = sorted((ends[0], 2 * centre - ends[0]))
    low, high = ends
    return (low + high) / 2, standard_error(low, high, point.num_clusters)


def _scaled(value: float, claim: Claim) -> float:
    return math.log(value) if claim.metric.is_on_log_scale else value


def _thresholds(claim: Claim) -> list[float]:
    """Where the rule's verdict turns."""
    return [edge for edge in claim.rule.bounds if math.isfinite(edge)]
