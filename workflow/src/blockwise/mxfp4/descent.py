"""What a step along each arm's gradient gains, from the weights of a published model.

    python -m blockwise.mxfp4.descent --config ... --experiment ... --start 0 ...

At one start, every arm averages its gradient over the same micro-batches. From the published
weights one step of equal length is taken against it, and one against its signs, as Adam's first
step would be. Only the weights of the layers that quantize move. What is measured is held-out
loss in float32 arithmetic, so that arms differ by their direction alone.

A start is one record in the cell store. Its key names no machine and no code: records of several
machines go together, and what is finished is never computed again.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from blockwise.artifacts import load_sealed, read_sealed, write_model, write_sealed
from blockwise.config.mxfp4 import MXFP4
from blockwise.config.pretrained import DescentExperiment
from blockwise.config.recipes import Recipe
from blockwise.errors import run_command
from blockwise.mxfp4.averaged_gradients import (
    Averaged,
    Gradient,
    GradientSource,
    MicroBatch,
    Weights,
    dot,
    norm,
)
from blockwise.mxfp4.noise import draw_key
from blockwise.mxfp4.origin import origin
from blockwise.mxfp4.pretrained import PublishedModel, load
from blockwise.mxfp4.records import (
    DescentOfArm,
    DescentOutput,
    DescentSpec,
    DescentStart,
    descent_path,
    record_path,
)
from blockwise.mxfp4.selection import experiment_of, study_of
from blockwise.mxfp4.shared_passes import shared_passes
from blockwise.progress import WorkProgress

MEASUREMENT = 1  # raise where a start would find other numbers; its records are then made anew


def spec_of(
    study: MXFP4, experiment: DescentExperiment, start: int, published: PublishedModel
) -> DescentSpec:
    """Everything that can change what a start finds."""
    assert study.pretrained is not None
    return DescentSpec(
        measurement=MEASUREMENT,
        model_digest=published.digest,
        corpus_digest=published.corpus.card.digest,
        layers=study.pretrained.layers,
        sequence_tokens=study.pretrained.sequence_tokens,
        num_micro_batches=experiment.num_micro_batches,
        micro_batch_sequences=experiment.micro_batch_sequences,
        evaluation_sequences=experiment.evaluation_sequences,
        num_starts=len(experiment.starts),
        step_norm_frac=experiment.step_norm_frac,
        signed_step_frac=experiment.signed_step_frac,
        start=start,
        recipes=[study.arms[arm] for arm in experiment.all_arms()],
    )


@dataclass(frozen=True)
class StartText:
    """The text of one start."""

    micro_batches: Sequence[Tensor]  # each [sequences, tokens + 1]
    held_out: Tensor  # likewise

    @classmethod
    def of(
        cls,
        experiment: DescentExperiment,
        start: int,
        sequence_tokens: int,
        published: PublishedModel,
        device: str,
    ) -> "StartText":
        """Micro-batches of the start as a seed; held-out text that it shares with no other start.

        Raises:
            DatasetError: the text is too little.
        """
        corpus, num_starts = published.corpus, len(experiment.starts)
        micro_batches = [
            corpus.train_batch(step, start, experiment.micro_batch_sequences, sequence_tokens)
            for step in range(experiment.num_micro_batches)
        ]
        held_out = corpus.validation_batch(
            num_starts * experiment.evaluation_sequences, sequence_tokens
        )[experiment.starts.index(start) :: num_starts]
        return cls([one.to(device) for one in micro_batches], held_out.to(device))


class Descent:
    """One start.

    Args:
        published: the model.
        arms: recipes by name; cosines are with the first one's gradient.
        experiment: lengths of the steps.
        text: of the start.
        start: its number, which is the seed of all random numbers.
        is_compiled: compile what prepares the operands; the same bits, faster.
    """

    def __init__(
        self,
        published: PublishedModel,
        arms: Mapping[str, Recipe],
        experiment: DescentExperiment,
        text: StartText,
        start: int,
        *,
        is_compiled: bool,
    ) -> None:
        self._published, self._arms, self._text = published, arms, text
        self._source = GradientSource(published.model, published.layers, is_compiled=is_compiled)
        self.weights = Weights.of(published.model, published.layers)
        length = self.weights.norm()
        self._lengths = {
            False: experiment.step_norm_frac * length,
            True: experiment.signed_step_frac * length,
        }
        generator = torch.Generator().manual_seed(start)
        self._micro_batches = [
            MicroBatch(
                partial(published.loss, tokens),
                {layer: draw_key(generator).to(tokens.device) for layer in published.layers},
            )
            for tokens in text.micro_batches
        ]

    def arms(self, progress: WorkProgress) -> dict[str, DescentOfArm]:
        """All arms; one whose loss is not finite is left out."""
        found: dict[str, DescentOfArm] = {}
        reference: Gradient | None = None
        for shared, arms in shared_passes(self._arms):
            averaged = self._source.averaged(
                shared, arms, self._micro_batches, lambda: progress.advance(0, pieces=1)
            )
            for arm, one in averaged.items():
                if reference is None:
                    reference = one.gradient
                found[arm] = self._of_arm(one, reference)
                progress.say(f"{arm}: cosine {found[arm].cosine:.4f}")
                if one.gradient is not reference:
                    one.gradient = {}
        return {arm: found[arm] for arm in self._arms if arm in found}

    def held_out_loss(self) -> float:
        """Mean over the held-out sequences, one at a time, in float32 arithmetic."""
        with torch.no_grad():
            losses = [float(self._published.loss(one[None])[0]) for one in self._text.held_out]
        return sum(losses) / len(losses)

    def _of_arm(self, averaged: Averaged, reference: Gradient) -> DescentOfArm:
        gradient, size = averaged.gradient, norm(averaged.gradient)
        return DescentOfArm(
            train_loss=sum(averaged.losses) / len(averaged.losses),
            gradient_norm=size,
            cosine=dot(gradient, reference) / (size * norm(reference)),
            stepped_loss=self._loss_after(gradient, is_signed=False),
            signed_loss=self._loss_after(gradient, is_signed=True),
        )

    def _loss_after(self, gradient: Gradient, *, is_signed: bool) -> float | None:
        self.weights.step(gradient, self._lengths[is_signed], is_signed=is_signed)
        try:
            loss = self.held_out_loss()
            return loss if math.isfinite(loss) else None
        finally:
            self.weights.restore()


def descend(study: MXFP4, name: str, start: int, published: PublishedModel) -> DescentStart:
    """Measure one start.

    Raises:
        ConfigError: no such experiment.
        DatasetError: the text is too little.
    """
    begun = origin(study.device)
    experiment = experiment_of(study, name, DescentExperiment)
    spec = spec_of(study, experiment, start, published)
    arms = {arm: study.arms[arm] for arm in experiment.all_arms()}
    text = StartText.of(experiment, start, spec.sequence_tokens, published, study.device)
    descent = Descent(published, arms, experiment, text, start, is_compiled=study.compiled)
    num_passes = len(shared_passes(arms)) * experiment.num_micro_batches
    held_out_loss = descent.held_out_loss()
    with WorkProgress(f"{name}, start {start}", num_passes, unit="passes") as progress:
        found = descent.arms(progress)
    return DescentStart(
        key=spec.key,
        spec=spec,
        num_layers=len(published.layers),
        num_moved_weights=descent.weights.num(),
        held_out_loss=held_out_loss,
        arms=found,
        origin=begun,
    )


def finished(store: Path, records: Path | None, key: str) -> DescentStart | None:
    """A finished start, from the store or from the kept records; None: there is none."""
    record = load_sealed(descent_path(store, key), DescentStart, print)
    if record is None and records is not None and record_path(records, key).exists():
        record = read_sealed(record_path(records, key), DescentStart)
    return record


def keep(store: Path, records: Path | None, record: DescentStart) -> None:
    """Put a finished start where it is looked for, unless it is there."""
    places = [descent_path(store, record.key)]
    if records is not None:
        places.append(record_path(records, record.key))
    for place in places:
        if not place.exists():
            write_sealed(place, record)


def main() -> None:
    """Command line: one start of one experiment."""
    parser = argparse.ArgumentParser(prog="python -m blockwise.mxfp4.descent", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="resolved profile")
    parser.add_argument("--experiment", required=True)
    parser.add_argument("--start", type=int, required=True)
    parser.add_argument("--pretrained", type=Path, required=True, help="folder of the model")
    parser.add_argument("--store", type=Path, required=True, help="folder of the cell store")
    parser.add_argument("--records", type=Path, help="folder that keeps finished starts too")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the same sums on every machine
    study = study_of(arguments.config)
    experiment = experiment_of(study, arguments.experiment, DescentExperiment)
    published = load(study, arguments.pretrained)
    spec = spec_of(study, experiment, arguments.start, published)
    record = finished(arguments.store, arguments.records, spec.key)
    if record is None:
        record = descend(study, arguments.experiment, arguments.start, published)
    keep(arguments.store, arguments.records, record)
    output = DescentOutput(experiment=arguments.experiment, start=record)
    write_model(arguments.output, output)


if __name__ == "__main__":
    run_command(main)
