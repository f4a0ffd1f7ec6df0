"""`mxfp4_verdicts.csv`: the quantities that decide, each beside what chance does to it.

Everything is paired by seed and read from validation text: losses after the last step, and tokens
to the target over the baseline's. Three kinds of quantities:

- `over baseline`: an arm less the baseline. The null arm is one of the arms.
- `difference`: an arm less another one. F+D+W less F+D is what Wgrad adds; a deterministic
  rotation less the randomized one is what their signs are worth.
- `recovered`: of what Wgrad adds, the fraction that a remedy takes away:
  (F+D+W - remedy) / (F+D+W - F+D). Where nothing is resolved to be recovered there is no interval.
- `other eps`: an arm's distance from the baseline, less the same in the experiment that differs
  from this one by its optimizer.

A seed that does not reach the target counts with the horizon, and the quantity then has neither
interval nor verdict: `mxfp4_ladder` bounds it. Nor has one whose null arm is off zero.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from blockwise.config.mxfp4 import LadderExperiment
from blockwise.config.mxfp4_studies import Study
from blockwise.config.recipes import DeterministicHadamard, RandomizedHadamard, Recipe
from blockwise.fieller import ratio_of_means
from blockwise.statistics import Interval, PairedDifference, paired_difference
from blockwise.tables.columns import Column, ColumnKind, count, frame, number, text
from blockwise.tables.inputs import TableInputs
from blockwise.tables.mxfp4.parts.crossing import crossings_of
from blockwise.tables.mxfp4.parts.spread import NOT_POWERED, Spread, verdict
from blockwise.tables.mxfp4.parts.training import (
    ARM,
    SCOPE,
    TrainedExperiment,
    final_averaged_loss,
    final_quantized_loss,
    final_unquantized_loss,
    finished,
    trained_experiments,
)

NULL_IS_OFF = "the null arm is off zero"
CENSORED = "censored"
NO_CLAIM = "not testable at this scale: "  # what the claims take for a verdict of their own
DAMAGED, UNDAMAGED = "F+D+W", "F+D"
LOSSES = {
    "final_quantized_loss": final_quantized_loss,
    "final_unquantized_loss": final_unquantized_loss,
    "final_averaged_loss": final_averaged_loss,
}
OVERHEAD = "overhead"
EFFECT = Spread("effect", "", "unit", "The quantity, in the unit of its row")
NULL = Spread("null", "", "unit", "The null arm less the baseline in the same measure and unit")

COLUMNS: tuple[Column, ...] = (
    *SCOPE,
    text("baseline", "Arm that everything is paired with, seed by seed."),
    text("quantity", "over baseline, difference, recovered or other eps."),
    ARM,
    text("reference", "What the arm is held against: an arm, or an experiment for `other eps`."),
    text(
        "measure",
        "Last validation loss (quantized, unquantized, or of averaged weights), or overhead: "
        "tokens to the target over the baseline's, less 1.",
    ),
    text("unit", "nats a token, or 1 for shares."),
    *EFFECT.columns(),
    number(
        "effect_t",
        "Paired t statistic; empty below 6 seeds and for `recovered`.",
        ColumnKind.SAMPLED,
        "1",
    ),
    count("num_censored", "Seeds of the arms that do not reach the target.", ColumnKind.SAMPLED),
    *NULL.columns(),
    number(
        "smallest_resolved",
        "Half the width of the null arm's interval: a mean effect of pairs that stray as far would "
        "have to be larger to be told from zero.",
        ColumnKind.SAMPLED,
        "unit",
    ),
    text(
        "verdict",
        f"higher or lower (recovered: some or none), {NOT_POWERED}, {CENSORED}, or {NULL_IS_OFF}.",
        ColumnKind.SAMPLED,
    ),
    text("note", "Why no claim may rest on the row; empty: one may.", ColumnKind.SAMPLED),
)

Values = Mapping[str, float]
"""By seed."""


@dataclass(frozen=True)
class _Measure:
    """One measure of all arms of an experiment."""

    name: str
    unit: str
    by_arm: Mapping[str, Values]
    censored: Mapping[str, int]  # seeds by arm
    null: PairedDifference | None
    shows_null: bool = True  # a fraction is in another unit


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row a quantity and measure of an experiment and baseline."""
    experiments = trained_experiments(inputs, Study.LADDER)
    rows: list[dict[str, Any]] = []
    for experiment in experiments:
        for baseline in experiment.settings.baselines:
            if baseline not in experiment.arms:
                continue
            labels = {
                "experiment": experiment.name,
                "caption": experiment.caption,
                "num_parameters": experiment.num_parameters(),
                "baseline": baseline,
            }
            others = [one for one in experiments if _differs_by_optimizer(experiment, one)]
            for measure in _measures(experiment, baseline):
                own = [*_rows(experiment, baseline, measure), *_eps_rows(measure, baseline, others)]
                rows += [{**labels, **row} for row in own]
    return frame(rows, COLUMNS)


def _measures(experiment: TrainedExperiment, baseline: str) -> Iterator[_Measure]:
    settings = experiment.settings
    assert isinstance(settings, LadderExperiment)  # the study says so
    for name, loss_of in LOSSES.items():
        losses = {arm: _by_name(finished(runs, loss_of)) for arm, runs in experiment.arms.items()}
        if any(losses.values()):
            yield _with_null(_Measure(name, "nats", losses, {}, None), settings, baseline)
    crossings = {
        arm: crossings_of(runs, experiment.arms[baseline], settings)
        for arm, runs in experiment.arms.items()
    }
    overheads = {
        arm: {str(seed): one.overhead for seed, one in own.items() if one is not None}
        for arm, own in crossings.items()
    }
    censored = {
        arm: sum(one is not None and one.own_tokens is None for one in own.values())
        for arm, own in crossings.items()
    }
    yield _with_null(_Measure(OVERHEAD, "1", overheads, censored, None), settings, baseline)


def _with_null(measure: _Measure, settings: LadderExperiment, baseline: str) -> _Measure:
    null = measure.by_arm.get(settings.null_arm or "", {})
    return replace(measure, null=paired_difference(null, measure.by_arm[baseline]))


def _rows(
    experiment: TrainedExperiment, baseline: str, measure: _Measure
) -> Iterator[dict[str, Any]]:
    recipes = {arm: next(iter(runs.values())).spec.recipe for arm, runs in experiment.arms.items()}
    for arm in experiment.arms:
        if arm != baseline:
            yield _difference("over baseline", arm, baseline, measure)
    for arm, reference in _compared(recipes):
        yield _difference("difference", arm, reference, measure)
    if {DAMAGED, UNDAMAGED} <= recipes.keys():
        for arm, recipe in recipes.items():
            if "+".join(recipe.gemms) == DAMAGED != arm:
                yield _recovered(arm, measure)


def _compared(recipes: Mapping[str, Recipe]) -> Iterator[tuple[str, str]]:
    """Arms that are held against each other: with and without Wgrad, DHT and the same RHT."""
    if {DAMAGED, UNDAMAGED} <= recipes.keys():
        yield DAMAGED, UNDAMAGED
    for arm, recipe in recipes.items():
        twin = _randomized(recipe)
        yield from ((arm, other) for other, one in recipes.items() if twin and one == twin)


def _randomized(recipe: Recipe) -> Recipe | None:
    """The recipe with random signs in every rotation; None: it has no deterministic one."""
    changed: dict[str, Any] = {}
    for field in ("fprop", "dgrad", "wgrad"):
        gemm = getattr(recipe, field)
        if gemm is not None and isinstance(gemm.rotation, DeterministicHadamard):
            rotation = RandomizedHadamard(kind="rht", size=gemm.rotation.size)
            changed[field] = gemm.model_copy(update={"rotation": rotation})
    return recipe.model_copy(update=changed) if changed else None


def _difference(quantity: str, arm: str, reference: str, measure: _Measure) -> dict[str, Any]:
    found = paired_difference(measure.by_arm[arm], measure.by_arm[reference])
    return _row((quantity, arm, reference), measure, found, ("higher", "lower"))


def _recovered(arm: str, measure: _Measure) -> dict[str, Any]:
    plain, less, own = (measure.by_arm[one] for one in (DAMAGED, UNDAMAGED, arm))
    shared = sorted(plain.keys() & less.keys() & own.keys())
    taken = {seed: plain[seed] - own[seed] for seed in shared}
    added = {seed: plain[seed] - less[seed] for seed in shared}
    interval = ratio_of_means(taken, added)
    found = PairedDifference(interval, None) if interval else None
    told = replace(measure, unit="1", shows_null=False)
    return _row(("recovered", arm, DAMAGED), told, found, ("some", "none"))


def _eps_rows(
    measure: _Measure, baseline: str, others: list[TrainedExperiment]
) -> Iterator[dict[str, Any]]:
    for other in others:
        if baseline not in other.arms:
            continue
        theirs = next((one for one in _measures(other, baseline) if one.name == measure.name), None)
        if theirs is None:
            continue
        for arm in measure.by_arm.keys() & theirs.by_arm.keys() - {baseline}:
            found = paired_difference(
                _less(measure.by_arm[arm], measure.by_arm[baseline]),
                _less(theirs.by_arm[arm], theirs.by_arm[baseline]),
            )
            yield _row(("other eps", arm, other.name), measure, found, ("higher", "lower"))


def _differs_by_optimizer(own: TrainedExperiment, other: TrainedExperiment) -> bool:
    """Whether an experiment sets another optimizer and is else the same as the other one."""
    if own.settings.optimizer is None or other.settings.optimizer is not None:
        return False
    return (own.settings.model, own.settings.training) == (
        other.settings.model,
        other.settings.training,
    )


def _row(
    what: tuple[str, str, str],
    measure: _Measure,
    found: PairedDifference | None,
    words: tuple[str, str],
) -> dict[str, Any]:
    """The row of a quantity: its kind, its arm and what that is held against."""
    quantity, arm, reference = what
    arms = {arm, reference} | ({UNDAMAGED} if quantity == "recovered" else set())
    num_censored = sum(measure.censored.get(one, 0) for one in arms)
    interval = found.interval if found else None
    if interval is not None and num_censored:
        interval = replace(interval, low=None, high=None)
    null = measure.null.interval if measure.null else None
    shown = null if measure.shows_null else None
    told = _verdict(interval, null, num_censored, words)
    return {
        "quantity": quantity,
        "arm": arm,
        "reference": reference,
        "measure": measure.name,
        "unit": measure.unit,
        **EFFECT.interval_values(interval),
        "effect_t": found.t if found and not num_censored else None,
        "num_censored": num_censored,
        **NULL.interval_values(shown),
        "smallest_resolved": _smallest_resolved(shown),
        "verdict": told,
        "note": NO_CLAIM + told if told in (CENSORED, NULL_IS_OFF) else None,
    }


def _verdict(
    interval: Interval | None, null: Interval | None, num_censored: int, words: tuple[str, str]
) -> str | None:
    if interval is None:
        return None
    if num_censored:
        return CENSORED
    if verdict(null, above=NULL_IS_OFF, below=NULL_IS_OFF) == NULL_IS_OFF:
        return NULL_IS_OFF
    return verdict(interval, above=words[0], below=words[1])


def _smallest_resolved(null: Interval | None) -> float | None:
    if null is None or null.low is None or null.high is None:
        return None
    return (null.high - null.low) / 2


def _less(own: Values, reference: Values) -> dict[str, float]:
    return {seed: own[seed] - reference[seed] for seed in own.keys() & reference.keys()}


def _by_name(values: Mapping[int, float]) -> dict[str, float]:
    return {str(seed): value for seed, value in values.items()}
