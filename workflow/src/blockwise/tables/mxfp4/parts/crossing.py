"""The way of a run to its target: the baseline's loss at a set step, or one loss for all.

A run's curve is the losses that the experiment names: as the arm computes them, or likewise of
averaged weights. It reaches the target where it first crosses it, interpolated between
evaluations; a run that does not get there within the horizon is censored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from blockwise.config.mxfp4 import Curve, LadderExperiment
from blockwise.mxfp4.records import Evaluation, TrainingRun
from blockwise.tables.mxfp4.parts.training import Runs

Point = tuple[int, float | None]
"""A step and the loss after it; None: not finite."""


@dataclass(frozen=True)
class Crossing:
    """The way to the target in one seed."""

    target_loss: float
    baseline_tokens: float
    own_tokens: float | None  # None: not reached, or diverged
    horizon_tokens: int

    @property
    def overhead(self) -> float:
        """Tokens over the baseline's, less 1; a lower bound where the target is not reached."""
        tokens_spent = self.horizon_tokens if self.own_tokens is None else self.own_tokens
        return tokens_spent / self.baseline_tokens - 1


def crossings_of(
    own: Runs, baseline: Runs, settings: LadderExperiment
) -> dict[int, Crossing | None]:
    """The way of each shared seed; None where there is no target that training could reach."""
    shared = sorted(own.keys() & baseline.keys())
    return {seed: _crossing(own[seed], baseline[seed], settings) for seed in shared}


def _crossing(
    own: TrainingRun, baseline: TrainingRun, settings: LadderExperiment
) -> Crossing | None:
    """The way to the target in one seed; None where there is no target to reach."""
    target = settings.target_loss
    if settings.target_step is not None:
        target = _loss_at(curve_of(baseline, settings.curve), settings.target_step)
    if target is None:
        return None
    baseline_step = _first_step_at(curve_of(baseline, settings.curve), target)
    if not baseline_step:
        return None
    curve = curve_of(own, settings.curve)
    step = _first_step_at(curve, target) if own.status == "finished" else None
    return Crossing(
        target_loss=target,
        baseline_tokens=baseline_step * baseline.tokens_per_step,
        own_tokens=None if step is None else step * own.tokens_per_step,
        horizon_tokens=horizon_tokens(own),
    )


def curve_of(run: TrainingRun, curve: Curve) -> list[Point]:
    """The losses along which a run reaches a target."""
    return [(one.step, _loss_of(one, curve)) for one in run.evaluations]


def _loss_of(evaluation: Evaluation, curve: Curve) -> float | None:
    return evaluation.averaged_loss if curve is Curve.AVERAGED else evaluation.quantized_loss


def _loss_at(points: Sequence[Point], step: int) -> float | None:
    """Validation loss after a step, interpolated; None: not finite, or the run ended before."""
    for known_step, loss in points:
        if known_step == step:
            return loss
    for (step_before, before), (step_after, after) in pairwise(points):
        if step_before < step < step_after:
            if before is None or after is None:
                return None
            return before + (step - step_before) / (step_after - step_before) * (after - before)
    return None


def _first_step_at(points: Sequence[Point], target: float) -> float | None:
    """Where a loss first falls to the target, interpolated; None: nowhere.

    After a loss that is not finite there is nothing to interpolate: the evaluation itself counts.
    """
    step_before, loss_before = 0, None
    for step, loss in points:
        if loss is not None and loss <= target:
            if loss_before is None:
                return float(step)
            share = (loss_before - target) / (loss_before - loss)
            return step_before + share * (step - step_before)
        step_before, loss_before = step, loss
    return None


def horizon_tokens(run: TrainingRun) -> int:
    """Tokens of a whole run."""
    return run.spec.training.num_steps * run.tokens_per_step
