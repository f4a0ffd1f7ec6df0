"""Errors of every arm on one shared trajectory: same x, w and dy for all of them.

    python -m blockwise.mxfp4.diagnostics --config ... --experiment ... --corpus ... --output ...

The baseline arm is trained once. At chosen steps it stops, and its next batches go through
forward and backward passes that change nothing. Each converted layer then sees its input x, its
weight w and the gradient dy of its output, and every arm computes its three GEMMs from these very
matrices, so that arms differ by arithmetic alone. Nothing is kept of a batch but sums.

What survives averaging is the systematic part of an error. A step averages dW over batches, and
so do we. Products of Fprop and Dgrad have a row a token, and tokens of different batches have
nothing in common: they are averaged over tokens and batches, down to a vector of features.

The gradient-to-noise ratio of Wgrad is |dW| over the norm of its error. Chmiel et al.
(arXiv 2505.19115) find that FP4 training stops to help where it falls below sqrt(3).
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from blockwise.artifacts import write_model
from blockwise.config.mxfp4 import MXFP4, DiagnosticsExperiment
from blockwise.config.recipes import Recipe
from blockwise.errors import ConfigError, run_command
from blockwise.mxfp4.corpus import TokenCorpus
from blockwise.mxfp4.layer_errors import NUM_OPERAND_BATCHES, StepErrors
from blockwise.mxfp4.layer_operands import linear_names, visit_operands
from blockwise.mxfp4.model import Llama
from blockwise.mxfp4.noise import draw_key
from blockwise.mxfp4.origin import origin
from blockwise.mxfp4.records import Diagnostics, ErrorStatistics, LayerOperand
from blockwise.mxfp4.selection import experiment_of, study_of
from blockwise.mxfp4.train import train
from blockwise.mxfp4.train_arm import run_spec
from blockwise.progress import WorkProgress

MIN_STEPS_TO_COMPILE = 7  # of measurement; for fewer, tracing costs more than it saves
SEED_STRIDE = 1_000_003  # a prime above any step count: no two (seed, step) share their keys


class ErrorProbe:
    """Measures arms at chosen steps of a training; it is what the trainer calls at each step.

    Args:
        name: of the experiment.
        experiment: which steps, batches and seed.
        arms: recipes by name.
        converted: patterns of the layers that are measured.
        batch: tokens of the training batch of a step.
        is_compiled: compile what prepares the operands.
    """

    def __init__(
        self,
        name: str,
        experiment: DiagnosticsExperiment,
        arms: Mapping[str, Recipe],
        converted: Sequence[str],
        batch: Callable[[int], Tensor],
        *,
        is_compiled: bool,
    ) -> None:
        self._name, self._experiment, self._arms = name, experiment, arms
        self._converted, self._batch = converted, batch
        self._is_compiled = is_compiled
        self.unmeasured_steps = set(experiment.measure_at_steps)
        self.errors: list[ErrorStatistics] = []
        self.operands: list[LayerOperand] = []

    def __call__(self, step: int, model: Llama) -> None:
        """Measure, if this step is one of the chosen ones and the loss is finite.

        Raises:
            ConfigError: nothing to measure, or a product without a finite norm above 0.
        """
        if step not in self.unmeasured_steps:
            return
        layers = linear_names(model, self._converted)
        if not layers:
            raise ConfigError(
                f"no linear layer matches {list(self._converted)}; mend mxfp4.converted"
            )
        device = next(model.parameters()).device
        generator = torch.Generator().manual_seed(self._experiment.seed * SEED_STRIDE + step)
        found = StepErrors(self._arms, is_compiled=self._is_compiled)
        for index in range(self._experiment.num_batches):
            keys = {layer: draw_key(generator).to(device) for layer in layers}
            found.begin_batch(keys, with_operands=index < NUM_OPERAND_BATCHES)
            tokens = self._batch(step + index).to(device)
            loss = partial(_loss, model, tokens)
            if not visit_operands(model, loss, layers, found.add):
                return
        self.errors += found.rows(self._name, step, layers)
        self.operands += found.operand_rows(self._name, step, layers)
        self.unmeasured_steps.remove(step)


def _loss(model: Llama, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
    return model.loss(tokens), list(model.parameters())


def diagnose(study: MXFP4, name: str, corpus: TokenCorpus) -> Diagnostics:
    """Train the baseline of one experiment and measure its arms on the way.

    The batches of a measurement are those that the baseline would train on next.

    Raises:
        ConfigError: no such experiment, or one that cannot be measured.
        DatasetError: the corpus is too small for a batch.
    """
    begun = origin(study.device)
    experiment = experiment_of(study, name, DiagnosticsExperiment)
    training = experiment.training

    def batch(step: int) -> Tensor:
        return corpus.train_batch(
            step,
            experiment.seed,
            training.batch_sequences,
            study.model.sequence_tokens,
            training.num_repeated_batches,
        )

    arms = {arm: study.arms[arm] for arm in experiment.arms}
    is_compiled = study.compiled and len(experiment.measure_at_steps) >= MIN_STEPS_TO_COMPILE
    probe = ErrorProbe(name, experiment, arms, study.converted, batch, is_compiled=is_compiled)
    spec = run_spec(study, training, study.arms[experiment.baseline], experiment.seed, corpus.card)
    with (
        tempfile.TemporaryDirectory() as folder,
        WorkProgress(name, training.num_steps, unit="steps") as progress,
    ):
        run = train(
            spec,
            corpus,
            Path(folder) / "baseline",
            is_compiled=study.compiled,
            at_step=probe,
            report=lambda num_tokens, loss: progress.advance(num_tokens, state=f"loss {loss:.3f}"),
        )
    if probe.unmeasured_steps:
        reason = run.divergence or "the loss is not finite"
        print(f"{name}: steps {sorted(probe.unmeasured_steps)} are not measured: {reason}")
    return Diagnostics(
        experiment=name,
        num_batches=experiment.num_batches,
        errors=probe.errors,
        operands=probe.operands,
        origin=begun,
    )


def main() -> None:
    """Command line: one experiment."""
    parser = argparse.ArgumentParser(
        prog="python -m blockwise.mxfp4.diagnostics", description=__doc__
    )
    parser.add_argument("--config", type=Path, required=True, help="resolved profile")
    parser.add_argument("--experiment", required=True)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of the token files")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the same sums on every machine
    study = study_of(arguments.config)
    corpus = TokenCorpus.open(arguments.corpus)
    write_model(arguments.output, diagnose(study, arguments.experiment, corpus))


if __name__ == "__main__":
    run_command(main)
