"""Verdicts: what the rule of a claim says of its points. The rule decides, never a hand.

A point supports a claim where its whole 95% interval is on the rule's side, and contradicts it
where the whole interval is on the other. The points of all claims are tested together: what an
interval alone would decide stays inconclusive if it does not survive the control of the false
discovery rate (Benjamini and Hochberg) over every point of the run that has an interval.

A claim is contradicted if one of its points is, supported if every point that can decide is,
and inconclusive otherwise.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd
from scipy.special import ndtri, stdtr  # type: ignore[import-untyped]  # ships no types
from scipy.stats import false_discovery_control  # type: ignore[import-untyped]

from blockwise.claims.points import Point, points_of
from blockwise.config.claims import Claim, Rule
from blockwise.statistics import CONFIDENCE, MIN_CLUSTERS, standard_error

MAX_FALSE_DISCOVERY_FRAC = 0.05
POWER = 0.8  # of the n that would resolve the reported effect


class Verdict(StrEnum):
    """What a run says of a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    INCONCLUSIVE = "inconclusive"
    NOT_TESTABLE = "not testable at this scale"


@dataclass(frozen=True)
class JudgedPoint:
    """A point with what the rule says of it."""

    point: Point
    verdict: Verdict
    reason: str
    needed_clusters: int | None  # that would resolve the reported effect; None: unknown


@dataclass(frozen=True)
class JudgedClaim:
    """A claim with its points, the decisive one first."""

    name: str
    claim: Claim
    verdict: Verdict
    reason: str
    points: tuple[JudgedPoint, ...]


def judge(claims: Mapping[str, Claim], tables: Mapping[str, pd.DataFrame]) -> list[JudgedClaim]:
    """Judge every claim by the tables of one run, in the order of the claims.

    Args:
        claims: by their id.
        tables: the run's tables by name.

    Raises:
        ConfigError: a metric names a column that its table does not have.
    """
    found = {name: points_of(claim, tables) for name, claim in claims.items()}
    survivors = _survivors(claims, found)
    return [
        _judged(name, claim, [_judge(point, claim, survivors) for point in found[name]])
        for name, claim in claims.items()
    ]


def _judged(name: str, claim: Claim, points: Sequence[JudgedPoint]) -> JudgedClaim:
    order = [Verdict.CONTRADICTED, Verdict.INCONCLUSIVE, Verdict.SUPPORTED, Verdict.NOT_TESTABLE]
    ranked = sorted(points, key=lambda one: order.index(one.verdict))
    if not ranked:
        reason = f"this run has no such row of {claim.metric.table}"
        return JudgedClaim(name, claim, Verdict.NOT_TESTABLE, reason, ())
    first = ranked[0]
    same = sum(one.verdict is first.verdict for one in ranked)
    reason = first.reason if len(ranked) == 1 else f"{same} of {len(ranked)} points: {first.reason}"
    return JudgedClaim(name, claim, first.verdict, reason, tuple(ranked))


def _judge(point: Point, claim: Claim, survivors: frozenset[int]) -> JudgedPoint:
    needed = _needed_clusters(point, claim)
    verdict, reason = _verdict(point, claim, survivors)
    return JudgedPoint(point, verdict, reason, needed)


def _verdict(point: Point, claim: Claim, survivors: frozenset[int]) -> tuple[Verdict, str]:
    untestable = _why_untestable(point, claim)
    if untestable:
        return Verdict.NOT_TESTABLE, untestable
    if point.low is None and point.high is None:
        return Verdict.INCONCLUSIVE, _why_no_interval(point)
    side = _side(*_ends(point), claim.rule)
    if side is Verdict.INCONCLUSIVE:
        return side, "the interval holds the threshold"
    if id(point) not in survivors:
        return (
            Verdict.INCONCLUSIVE,
            f"alone it would be {side}; among all points of the ledger the false discovery rate "
            f"exceeds {MAX_FALSE_DISCOVERY_FRAC:.0%}",
        )
    region = claim.rule.inside if side is Verdict.SUPPORTED else claim.rule.outside
    return side, f"the whole {CONFIDENCE:.0%} interval is {region}"


def _why_untestable(point: Point, claim: Claim) -> str:
    """Why this point cannot decide the claim, whatever it measured; empty: it can."""
    if point.num_parameters < claim.min_num_parameters:
        reason = (
            f"it takes a model of {claim.min_num_parameters:.0e} parameters, this one has "
            f"{point.num_parameters:.1e}"
        )
        return "; ".join(filter(None, [reason, claim.scale_reason]))
    return point.note if Verdict.NOT_TESTABLE in point.note else ""  # as notes of tables say it


def _why_no_interval(point: Point) -> str:
    if point.value is None:
        return point.note or "nothing was measured here"
    if point.num_clusters < MIN_CLUSTERS:
        return f"{point.num_clusters} clusters, and below {MIN_CLUSTERS} no interval is given"
    return point.note or "no interval: data_dictionary.csv says when there is none"


def _ends(point: Point) -> tuple[float, float]:
    """Ends of the interval; one that is open ends nowhere."""
    low = -math.inf if point.low is None else point.low
    return low, math.inf if point.high is None else point.high


def _side(low: float, high: float, rule: Rule) -> Verdict:
    least, most = rule.bounds
    if (least < low or least == -math.inf) and (high < most or most == math.inf):
        return Verdict.SUPPORTED
    return Verdict.CONTRADICTED if high < least or low > most else Verdict.INCONCLUSIVE


def _survivors(claims: Mapping[str, Claim], found: Mapping[str, Sequence[Point]]) -> frozenset[int]:
    """Ids of the points that survive the control of false discoveries."""
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


def _p_value(point: Point, claim: Claim) -> float | None:
    """Two-sided p of the threshold nearest to the estimate; None: the point is not tested."""
    spread = _spread(point, claim)
    if spread is None or _why_untestable(point, claim):
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


def _needed_clusters(point: Point, claim: Claim) -> int | None:
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
