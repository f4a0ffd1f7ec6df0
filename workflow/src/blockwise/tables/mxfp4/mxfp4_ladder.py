"""`mxfp4_ladder.csv`: how many more tokens an arm needs, FP4 in one GEMM after the other.

The target is fixed before the run: the baseline's validation loss at a set step of the same
seed, as the baseline itself computes it, or one loss for all. An arm's loss, as the arm computes
it, reaches the target where it first crosses it, interpolated between evaluations; the baseline's
tokens are counted by the same rule, so that a lucky dip helps no arm against it. An arm that does
not get there within the horizon is censored (`not reached`), one that diverged is counted apart.
A mean over the seeds that got there would flatter the arm: where one did not, it counts with the
horizon, mean and maximum are empty, and what is left of the interval is its lower end: whatever
the censored seeds would have needed, it holds below. A baseline's own row compares nothing.

What the paper reports stands beside the rows of its kind, and is marked as such.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from blockwise.config.mxfp4 import LadderExperiment
from blockwise.config.mxfp4_studies import Study
from blockwise.mxfp4.records import TrainingRun
from blockwise.tables.columns import Column, ColumnKind, count, frame, number, text, tokens
from blockwise.tables.inputs import TableInputs
from blockwise.tables.mxfp4.parts.crossing import Crossing, crossings_of, horizon_tokens
from blockwise.tables.mxfp4.parts.reported import NO_CONVERGENCE, REACHED, SOURCE, reported_for
from blockwise.tables.mxfp4.parts.spread import (
    NOT_POWERED,
    RANGE,
    LossDifference,
    Spread,
    interval_of,
    verdict,
)
from blockwise.tables.mxfp4.parts.training import (
    FINAL_LOSSES,
    LABELS,
    Runs,
    TrainedExperiment,
    final_quantized_loss,
    finished,
    label_values,
    trained_experiments,
)

TARGET_LOSS = Spread(
    "target_loss",
    "_nats",
    "nats",
    "Validation loss that is the target: the baseline's at target_step, or a set one",
    statistics=(*RANGE, "num"),
)
BASELINE_TOKENS = Spread(
    "baseline_to_target",
    "_tokens",
    "tokens",
    "Tokens until the baseline first has its target loss",
    statistics=RANGE,
)
TO_TARGET = Spread(
    "to_target",
    "_tokens",
    "tokens",
    "Tokens until the arm first has the target loss; mean and maximum are empty where some seed "
    "does not get there",
    statistics=RANGE,
)
OVERHEAD = Spread(
    "overhead",
    "_frac",
    "1",
    "Tokens of the arm over those of the baseline, less 1; where some seed does not get there, it "
    "counts with the horizon, the lower end is a bound from below, and the rest is empty",
)
NULL_OVERHEAD = Spread(
    "null_overhead",
    "_frac",
    "1",
    "Overhead of the null arm, which differs from this baseline by the order of sums alone: what "
    "chance does to an overhead",
)
NULL_LOSS = LossDifference(
    "null_quantized_loss_difference",
    "Last validation loss of the null arm, less that of this baseline: what chance does to a "
    "difference",
)
LOSSES = {f"final_{name}": loss for name, loss in FINAL_LOSSES.items()}
LEVELS = {
    name: Spread(name, "_nats", "nats", meaning, statistics=(*RANGE, "num"))
    for name, (meaning, _) in LOSSES.items()
}
DIFFERENCES = {
    name: LossDifference(f"{name}_difference", f"{meaning}, less that of the baseline")
    for name, (meaning, _) in LOSSES.items()
}

COLUMNS: tuple[Column, ...] = (
    *LABELS,
    tokens("step_tokens", "Tokens of one optimizer step."),
    count(
        "target_step",
        "Step of the baseline whose validation loss is the target; empty: the target is a set one.",
        unit="",
    ),
    text("curve", "Losses along which a target is reached: quantized, or of averaged weights."),
    tokens("horizon_tokens", "Tokens of a whole run; an arm that needs more is censored."),
    count("num_reached", "Seeds in which the arm reached the target.", ColumnKind.SAMPLED),
    count(
        "num_not_reached",
        "Seeds in which it ended above the target, without having diverged.",
        ColumnKind.SAMPLED,
    ),
    count(
        "num_no_target",
        "Seeds without a target that training could reach: the baseline diverged before "
        "target_step, its loss there is not below its loss before the first step, or it never "
        "has a set target. Diverged seeds of the arm may be among them.",
        ColumnKind.SAMPLED,
    ),
    *TARGET_LOSS.columns(),
    *BASELINE_TOKENS.columns(),
    *TO_TARGET.columns(),
    *OVERHEAD.columns(),
    number(
        "overhead_at_least_frac",
        "Mean overhead with every seed that did not get there, diverged ones included, counted "
        "with the horizon: a lower bound; empty where all got there.",
        ColumnKind.SAMPLED,
        "1",
    ),
    text(
        "verdict",
        f"slower or faster than the baseline, or {NOT_POWERED} where the interval of the overhead "
        "includes zero or there is none; a seed that did not get there counts with the horizon, "
        "which understates it. Empty for the baseline itself.",
        ColumnKind.SAMPLED,
    ),
    *(column for level in LEVELS.values() for column in level.columns()),
    *(column for difference in DIFFERENCES.values() for column in difference.columns()),
    text("null_arm", "The null arm; empty: the experiment has none."),
    *NULL_OVERHEAD.columns(),
    *NULL_LOSS.columns(),
    number(
        "reported_low_frac",
        "Overhead that the paper reports for this kind of arm against FP8, lower end.",
        ColumnKind.EXACT,
        "1",
    ),
    number("reported_high_frac", "Its upper end.", ColumnKind.EXACT, "1"),
    text("reported_outcome", f"What the paper reports: {REACHED} or {NO_CONVERGENCE}."),
    text("reported_source", "How the reported values are known; empty: none is."),
)


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row an arm and baseline of an experiment, the baseline itself included."""
    rows = []
    for experiment in trained_experiments(inputs, Study.LADDER):
        assert isinstance(experiment.settings, LadderExperiment)  # the study says so
        settings = experiment.settings
        rows += [_row(experiment, settings, baseline, arm) for baseline, arm in experiment.pairs()]
    return frame(rows, COLUMNS)


def _row(
    experiment: TrainedExperiment, settings: LadderExperiment, baseline: str, arm: str
) -> dict[str, Any]:
    own, reference = experiment.arms[arm], experiment.arms[baseline]
    crossings = crossings_of(own, reference, settings)
    known = {seed: crossing for seed, crossing in crossings.items() if crossing is not None}
    one_run = next(iter(own.values()))
    return {
        **label_values(experiment, baseline, arm),
        "step_tokens": one_run.tokens_per_step,
        "target_step": settings.target_step,
        "curve": settings.curve,
        "horizon_tokens": horizon_tokens(one_run),
        "num_reached": sum(crossing.own_tokens is not None for crossing in known.values()),
        "num_not_reached": sum(
            crossing.own_tokens is None and own[seed].status == "finished"
            for seed, crossing in known.items()
        ),
        "num_no_target": len(crossings) - len(known),
        **_target_values(known, is_baseline=arm == baseline),
        **_loss_values(own, None if arm == baseline else reference),
        **_null_values(experiment, settings, reference),
        **_reported_values(one_run, next(iter(reference.values()))),
    }


def _target_values(crossings: Mapping[int, Crossing], *, is_baseline: bool) -> dict[str, Any]:
    reached = {
        seed: crossing.own_tokens
        for seed, crossing in crossings.items()
        if crossing.own_tokens is not None
    }
    values = {
        **TARGET_LOSS.values({seed: one.target_loss for seed, one in crossings.items()}),
        **BASELINE_TOKENS.values({seed: one.baseline_tokens for seed, one in crossings.items()}),
        **TO_TARGET.values(reached),
        **_overhead_values({} if is_baseline else crossings),
    }
    if len(reached) < len(crossings):
        values |= {"to_target_mean_tokens": None, "to_target_max_tokens": None}
    return values


def _overhead_values(crossings: Mapping[int, Crossing]) -> dict[str, Any]:
    overheads = {seed: crossing.overhead for seed, crossing in crossings.items()}
    reached = {seed for seed, crossing in crossings.items() if crossing.own_tokens is not None}
    at_least = interval_of(overheads)
    values = {
        **OVERHEAD.values({seed: overheads[seed] for seed in reached}),
        "overhead_low_frac": at_least and at_least.low,
        "overhead_at_least_frac": None,
        "verdict": verdict(at_least, above="slower", below="faster"),
    }
    if at_least is not None and len(reached) < len(crossings):
        biased = (f"overhead_{name}_frac" for name in ("mean", "high", "max"))
        values |= {**dict.fromkeys(biased), "overhead_at_least_frac": at_least.mean}
    return values


def _loss_values(own: Runs, reference: Runs | None) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, (_, loss_of) in LOSSES.items():
        losses = finished(own, loss_of)
        values |= LEVELS[name].values(losses)
        values |= DIFFERENCES[name].values(losses, finished(reference or {}, loss_of))
    return values


def _null_values(
    experiment: TrainedExperiment, settings: LadderExperiment, reference: Runs
) -> dict[str, Any]:
    """How far the null arm strays; a censored seed counts with the horizon."""
    null_runs = experiment.arms.get(settings.null_arm or "", {})
    crossings = crossings_of(null_runs, reference, settings)
    overheads = {seed: one.overhead for seed, one in crossings.items() if one is not None}
    losses = finished(null_runs, final_quantized_loss)
    return {
        "null_arm": settings.null_arm,
        **NULL_OVERHEAD.values(overheads),
        **NULL_LOSS.values(losses, finished(reference, final_quantized_loss)),
    }


def _reported_values(own: TrainingRun, baseline: TrainingRun) -> dict[str, Any]:
    reported = reported_for(own.spec.recipe, baseline.spec.recipe)
    return {
        "reported_low_frac": reported and reported.low_frac,
        "reported_high_frac": reported and reported.high_frac,
        "reported_outcome": reported and reported.outcome,
        "reported_source": SOURCE if reported else None,
    }
