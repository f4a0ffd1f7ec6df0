"""Verdicts: what the rule of a claim says of its points. The rule decides, never a hand.

A point supports a claim where its whole 95% interval is on the rule's side, and contradicts it
where the whole interval is on the other. Gates come first: a point of too small a model or too
short a window, of a model that cannot do the task, of capped or stock summaries, decides nothing.
The points of all claims are tested together: what an interval alone would decide stays
inconclusive if it does not survive the control of the false discovery rate.

A claim is contradicted if one of its points is, supported if every point that can decide is, and
inconclusive otherwise. Its least favourable point stands for it: the worst verdict, and of that
the estimate that lies worst for the claim.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd

from blockwise.claims.evidence import (
    MAX_FALSE_DISCOVERY_FRAC,
    margin_of,
    needed_clusters,
    survivors_of,
)
from blockwise.claims.points import Point, points_of
from blockwise.claims.scale import Reach, reach_of
from blockwise.config.claim_metrics import Replication
from blockwise.config.claims import Claim, Rule
from blockwise.statistics import CONFIDENCE, MIN_CLUSTERS
from blockwise.tables.compaction.parts.gates import (
    MAX_LENGTH_FINISH_FRAC,
    MIN_DISTINCT_SUMMARIES_FRAC,
    Gate,
)


class Verdict(StrEnum):
    """What a run says of a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    INCONCLUSIVE = "inconclusive"
    CANNOT_DO = "cannot do the task"
    NOT_MEASURED = "not measured"
    NOT_TESTABLE = "not testable at this scale"


CLOSED = {
    Gate.CAPPED: f"capped: more than {MAX_LENGTH_FINISH_FRAC:.0%} of its summaries end at a cap",
    Gate.NOT_DIVERSE: "stock phrases: fewer than "
    f"{MIN_DISTINCT_SUMMARIES_FRAC:.0%} of its summaries are distinct",
}
"""Gates that take a point out of the verdict, with the reason."""


@dataclass(frozen=True)
class Finding:
    """What is said of one point."""

    verdict: Verdict
    reason: str
    decides: bool  # False: the verdict of the claim rests on others


@dataclass(frozen=True)
class JudgedPoint:
    """A point with what the rule says of it."""

    point: Point
    verdict: Verdict
    reason: str
    decides: bool
    needed_clusters: int | None  # that would resolve the reported effect; None: unknown


@dataclass(frozen=True)
class JudgedClaim:
    """A claim with its points, the least favourable one first."""

    name: str
    claim: Claim
    verdict: Verdict
    reason: str
    points: tuple[JudgedPoint, ...]

    @property
    def num_deciding(self) -> int:
        """Points that the verdict rests on."""
        return sum(one.decides for one in self.points)


def judge(claims: Mapping[str, Claim], tables: Mapping[str, pd.DataFrame]) -> list[JudgedClaim]:
    """Judge every claim by the tables of one run, in the order of the claims.

    Args:
        claims: by their id.
        tables: the run's tables by name.

    Raises:
        ConfigError: a metric names a column that its table does not have.
    """
    found = {name: points_of(claim, tables) for name, claim in claims.items()}
    barred = {
        id(point): finding
        for name, points in found.items()
        for point in points
        if (finding := _barred(point, claims[name])) is not None
    }
    tested = {
        name: [point for point in points if id(point) not in barred]
        for name, points in found.items()
    }
    survivors = survivors_of(claims, tested)
    judged = []
    for name, claim in claims.items():
        points = [
            _judged_point(point, claim, barred.get(id(point)) or _told(point, claim, survivors))
            for point in found[name]
        ]
        judged.append(_judged(name, claim, points, reach_of(claim.metric.table, tables)))
    return judged


def _judged_point(point: Point, claim: Claim, finding: Finding) -> JudgedPoint:
    needed = needed_clusters(point, claim)
    return JudgedPoint(point, finding.verdict, finding.reason, finding.decides, needed)


def _judged(name: str, claim: Claim, points: Sequence[JudgedPoint], reach: Reach) -> JudgedClaim:
    ranked = sorted(points, key=lambda one: _rank(one, claim))
    if not ranked:
        verdict, reason = _absent(claim, reach)
        return JudgedClaim(name, claim, verdict, reason, ())
    first = ranked[0]
    verdict, reason = first.verdict, first.reason
    if len(ranked) > 1:
        same = sum((one.verdict, one.decides) == (verdict, first.decides) for one in ranked)
        reason = f"{same} of {len(ranked)} points: {reason}{_left_out(ranked)}"
    backbones = {one.point.scale.backbone for one in ranked if one.verdict is verdict}
    is_decided = verdict in {Verdict.SUPPORTED, Verdict.CONTRADICTED}
    if is_decided and len(backbones) < claim.min_backbones:
        reason = (
            f"only {', '.join(sorted(backbones))} says {verdict}; it takes {claim.min_backbones} "
            f"backbones, because one model or training is one value ({reason})"
        )
        verdict = Verdict.INCONCLUSIVE
    return JudgedClaim(name, claim, verdict, reason, tuple(ranked))


def _rank(one: JudgedPoint, claim: Claim) -> tuple[int, float]:
    """The least favourable first: by verdict, then by where the estimate lies."""
    order = [
        (Verdict.CONTRADICTED, True),
        (Verdict.INCONCLUSIVE, True),
        (Verdict.SUPPORTED, True),
        (Verdict.INCONCLUSIVE, False),
        (Verdict.CANNOT_DO, False),
        (Verdict.NOT_MEASURED, False),
        (Verdict.NOT_TESTABLE, False),
    ]
    return order.index((one.verdict, one.decides)), margin_of(one.point, claim)


def _left_out(points: Sequence[JudgedPoint]) -> str:
    """Points that the verdict does not rest on, beside some that it does."""
    if not any(one.decides for one in points):
        return ""
    why = Counter(
        one.point.gate.value if one.point.gate in CLOSED else one.verdict.value
        for one in points
        if not one.decides
    )
    return f"; left out: {', '.join(f'{num} {words}' for words, num in why.items())}" if why else ""


def _absent(claim: Claim, reach: Reach) -> tuple[Verdict, str]:
    """What a run without a row says: it did not look, or it could not."""
    if reach.num_parameters and reach.num_parameters < claim.min_num_parameters:
        return Verdict.NOT_TESTABLE, _too_small(claim, reach.num_parameters, "the largest here has")
    if reach.num_parameters and reach.window_tokens < claim.min_window_tokens:
        return Verdict.NOT_TESTABLE, _too_short(
            claim, reach.window_tokens, "the longest window here is"
        )
    limits = (f"{column} at most {most:g}" for column, most in claim.metric.at_most.items())
    return (
        Verdict.NOT_MEASURED,
        f"this run has no such row of {', '.join([claim.metric.table, *limits])}",
    )


def _barred(point: Point, claim: Claim) -> Finding | None:
    """Why no rule is asked of this point; None: one is."""
    untestable = _why_untestable(point, claim)
    if untestable:
        return Finding(Verdict.NOT_TESTABLE, untestable, False)
    if point.gate is Gate.CANNOT_DO_TASK:
        reason = (
            "it is not shown that the model answers better from the full history, or from any "
            "arm compared, than from the question alone"
        )
        return Finding(Verdict.CANNOT_DO, reason, False)
    if point.value is None:
        return Finding(Verdict.NOT_MEASURED, point.note or "nothing was measured here", False)
    if point.gate in CLOSED:
        return Finding(Verdict.INCONCLUSIVE, CLOSED[point.gate], False)
    unreplicated = _why_unreplicated(point, claim)
    if unreplicated:
        return Finding(Verdict.INCONCLUSIVE, unreplicated, True)
    return None


def _why_untestable(point: Point, claim: Claim) -> str:
    """Why this point cannot decide the claim, whatever it measured; empty: it can."""
    scale = point.scale
    if scale.num_parameters < claim.min_num_parameters:
        return _too_small(claim, scale.num_parameters, "this one has")
    if scale.window_tokens < claim.min_window_tokens:
        return _too_short(claim, scale.window_tokens, "this one is")
    return point.note if Verdict.NOT_TESTABLE in point.note else ""  # as notes of tables say it


def _too_small(claim: Claim, num_parameters: float, words: str) -> str:
    return (
        f"it takes a model of {claim.min_num_parameters:.3g} parameters, {words} "
        f"{num_parameters:.3g}; {claim.scale_reason}"
    )


def _too_short(claim: Claim, window_tokens: float, words: str) -> str:
    return (
        f"it takes a window of {claim.min_window_tokens} tokens, {words} {window_tokens:.0f}; "
        f"{claim.scale_reason}"
    )


def _why_unreplicated(point: Point, claim: Claim) -> str:
    """Why the interval of this point is no evidence; empty: it is."""
    replication = claim.metric.replication
    if point.gate is Gate.TOO_FEW_STARTS or point.num_clusters < MIN_CLUSTERS:
        return (
            f"n = {point.num_clusters} ({replication}), and a verdict takes {MIN_CLUSTERS}: no "
            "interval is given"
        )
    if replication is Replication.ROUND:
        return (
            f"rounds of one process are one value, and a verdict takes {MIN_CLUSTERS} starts of it"
        )
    if point.low is None and point.high is None:
        return point.note or "no interval: data_dictionary.csv says when there is none"
    if replication is Replication.SEED:
        if point.null is None:
            return "no null arm of six seeds shows what chance does to such a difference"
        low, high = point.null
        if not low <= 0 <= high:
            return f"the null arm is off zero ({low:.3g} to {high:.3g})"
    return ""


def _told(point: Point, claim: Claim, survivors: frozenset[int]) -> Finding:
    """What the rule says of the interval."""
    side = _side(*_ends(point), claim.rule)
    if side is Verdict.INCONCLUSIVE:
        return Finding(side, "the interval holds the threshold", True)
    if id(point) not in survivors:
        return Finding(
            Verdict.INCONCLUSIVE,
            f"alone it would be {side}; among all points of the ledger the false discovery rate "
            f"exceeds {MAX_FALSE_DISCOVERY_FRAC:.0%}",
            True,
        )
    region = claim.rule.inside if side is Verdict.SUPPORTED else claim.rule.outside
    beside = "; the null arm: {:.3g} to {:.3g}".format(*point.null) if point.null else ""
    return Finding(side, f"the whole {CONFIDENCE:.0%} interval is {region}{beside}", True)


def _ends(point: Point) -> tuple[float, float]:
    """Ends of the interval; one that is open ends nowhere."""
    low = -math.inf if point.low is None else point.low
    return low, math.inf if point.high is None else point.high


def _side(low: float, high: float, rule: Rule) -> Verdict:
    least, most = rule.bounds
    if (least < low or least == -math.inf) and (high < most or most == math.inf):
        return Verdict.SUPPORTED
    return Verdict.CONTRADICTED if high < least or low > most else Verdict.INCONCLUSIVE
