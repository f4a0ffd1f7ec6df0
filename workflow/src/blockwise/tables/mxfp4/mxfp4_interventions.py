"""`mxfp4_interventions.csv`: which remedy lowers the loss that FP4 costs, on repeated batches.

Streams of new text drown small effects at this scale; a few batches that repeat do not. The
training-set loss of a run is the mean over one pass through them, at its end. Every arm is
paired by seed with each baseline (what is lost) and with the plain arm of the same GEMMs (what
the remedy wins back). A difference has its t statistic and its 95% interval from six seeds on;
where the interval includes zero it is `not powered`, which is no proof that nothing is there.
"""

from typing import Any

import pandas as pd

from blockwise.config.mxfp4 import Training
from blockwise.config.mxfp4_studies import Study
from blockwise.config.recipes import Recipe
from blockwise.mxfp4.records import TrainingRun
from blockwise.tables.columns import Column, count, frame, text
from blockwise.tables.inputs import TableInputs
from blockwise.tables.mxfp4.parts.spread import RANGE, LossDifference, Spread
from blockwise.tables.mxfp4.parts.training import (
    FINAL_LOSSES,
    LABELS,
    Runs,
    TrainedExperiment,
    finished,
    label_values,
    trained_experiments,
)


def num_final_steps(training: Training) -> int:
    """Steps whose losses make the training-set loss: one pass over the repeated batches.

    Where new text comes every step, as many as lie between evaluations: the same text for all
    arms of a seed.
    """
    return min(training.num_repeated_batches or training.evaluate_every_steps, training.num_steps)


def final_train_loss(run: TrainingRun) -> float:
    """Mean training loss of the last steps."""
    losses = run.train_losses[-num_final_steps(run.spec.training) :]
    return sum(losses) / len(losses)


LOSSES = {
    "train_loss": ("Mean training loss of the last num_final_steps", final_train_loss),
    **FINAL_LOSSES,
}
LEVELS = {
    name: Spread(name, "_nats", "nats", meaning, statistics=(*RANGE, "num"))
    for name, (meaning, _) in LOSSES.items()
}
OVER_BASELINE = {
    name: LossDifference(f"{name}_over_baseline", f"{meaning}, less that of the baseline")
    for name, (meaning, _) in LOSSES.items()
}
OVER_REFERENCE = {
    name: LossDifference(f"{name}_over_reference", f"{meaning}, less that of reference_arm")
    for name, (meaning, _) in LOSSES.items()
}

COLUMNS: tuple[Column, ...] = (
    *LABELS,
    count("num_steps", "Optimizer steps of a run."),
    count("num_repeated_batches", "Batches that repeat; empty: new text every step."),
    count(
        "num_final_steps",
        "Last steps whose training losses are averaged: one pass over the repeated batches, or "
        "without them as many steps as lie between evaluations.",
    ),
    *(column for level in LEVELS.values() for column in level.columns()),
    *(column for difference in OVER_BASELINE.values() for column in difference.columns()),
    text(
        "reference_arm",
        "The arm that quantizes the same GEMMs plainly; empty: this is it, it quantizes none in "
        "MXFP4, or the experiment has no such arm.",
    ),
    *(column for difference in OVER_REFERENCE.values() for column in difference.columns()),
)


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row an arm and baseline of an experiment; the baseline's own row compares nothing."""
    rows = [
        _row(experiment, baseline, arm)
        for experiment in trained_experiments(inputs, Study.INTERVENTIONS)
        for baseline, arm in experiment.pairs()
    ]
    return frame(rows, COLUMNS)


def _row(experiment: TrainedExperiment, baseline: str, arm: str) -> dict[str, Any]:
    runs, training = experiment.arms[arm], experiment.settings.training
    plain = _plain_arm(next(iter(runs.values())).spec.recipe)
    reference_arm = plain if plain in experiment.arms and plain != arm else None
    return {
        **label_values(experiment, baseline, arm),
        "num_steps": training.num_steps,
        "num_repeated_batches": training.num_repeated_batches,
        "num_final_steps": num_final_steps(training),
        "reference_arm": reference_arm,
        **_loss_values(
            runs,
            {} if arm == baseline else experiment.arms[baseline],
            experiment.arms[reference_arm] if reference_arm else {},
        ),
    }


def _plain_arm(recipe: Recipe) -> str:
    """Name of the arm with the same GEMMs and no remedy."""
    return "+".join(recipe.gemms)


def _loss_values(own: Runs, baseline: Runs, reference: Runs) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, (_, loss_of) in LOSSES.items():
        losses = finished(own, loss_of)
        values |= LEVELS[name].values(losses)
        values |= OVER_BASELINE[name].values(losses, finished(baseline, loss_of))
        values |= OVER_REFERENCE[name].values(losses, finished(reference, loss_of))
    return values
