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
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch
from torch import Tensor, nn

from blockwise.artifacts import write_model
from blockwise.config.mxfp4 import MXFP4, DiagnosticsExperiment
from blockwise.config.recipes import Recipe
from blockwise.errors import ConfigError, run_command
from blockwise.mxfp4.arithmetic import Arithmetic
from blockwise.mxfp4.corpus import TokenCorpus
from blockwise.mxfp4.gemm_errors import (
    FLOAT32,
    OperandStatistics,
    ProductErrors,
    operand_statistics,
    part_in,
    product_errors,
)
from blockwise.mxfp4.model import Llama
from blockwise.mxfp4.noise import draw_key
from blockwise.mxfp4.operand import Prepare, compiled_prepare, prepare_operand
from blockwise.mxfp4.origin import origin
from blockwise.mxfp4.records import Diagnostics, ErrorStatistics
from blockwise.mxfp4.selection import experiment_of, study_of
from blockwise.mxfp4.train import train
from blockwise.mxfp4.train_arm import run_spec
from blockwise.progress import WorkProgress

NUM_OPERAND_BATCHES = 2  # shares and kurtosis are of hundreds of thousands of elements a batch
MIN_STEPS_TO_COMPILE = 7  # of measurement; for fewer, tracing costs more than it saves
SEED_STRIDE = 1_000_003  # a prime above any step count: no two (seed, step) share their keys
Letter = Literal["F", "D", "W"]
LETTERS: tuple[Letter, ...] = ("F", "D", "W")

Visit = Callable[[str, Tensor, Tensor, Tensor], None]
"""Told a layer's name and its x [tokens, in], w [out, in] and dy [tokens, out]."""


def linear_names(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Linear layers that the patterns name, converted or not."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and any(fnmatchcase(name, one) for one in patterns)
    ]


def visit_operands(model: Llama, tokens: Tensor, layers: Sequence[str], visit: Visit) -> bool:
    """One forward and backward pass that shows the operands of layers and changes nothing.

    Layers come in the order of the backward pass. No gradient is left behind.

    Returns:
        Whether the loss was finite; without that there is no backward pass.
    """

    def watch(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            assert isinstance(module, nn.Linear)
            x, weight = inputs[0].detach(), module.weight.detach()
            output.register_hook(lambda dy: visit(name, _matrix(x), weight, _matrix(dy)))

        return hook

    handles = [model.get_submodule(name).register_forward_hook(watch(name)) for name in layers]
    try:
        loss = model.loss(tokens)
        if not loss.isfinite():
            return False
        torch.autograd.grad(loss, list(model.parameters()))
    finally:
        for handle in handles:
            handle.remove()
    return True


@dataclass
class _Batches:
    """What is kept of the batches of one GEMM of one layer, for one arithmetic."""

    product_sum: Tensor
    errors: list[ProductErrors] = field(default_factory=list)
    operands: list[tuple[OperandStatistics, OperandStatistics]] = field(default_factory=list)


class StepErrors:
    """Errors of all arms at one step, batch by batch.

    Args:
        arms: recipes by name; equal parts of them are computed once.
        is_compiled: compile what prepares the operands; the same bits, faster.
    """

    def __init__(self, arms: Mapping[str, Recipe], *, is_compiled: bool) -> None:
        self._parts = {
            letter: {arm: part for arm, recipe in arms.items() if (part := part_in(letter, recipe))}
            for letter in LETTERS
        }
        self._prepare: Prepare = compiled_prepare() if is_compiled else prepare_operand
        self._keys: Mapping[str, Tensor] = {}
        self._with_operands = False
        self._reference_sums: dict[tuple[str, Letter], Tensor] = {}
        self._batches: dict[tuple[str, Letter, Recipe], _Batches] = {}

    def begin_batch(self, keys: Mapping[str, Tensor], *, with_operands: bool) -> None:
        """What `add` tells from now on is of a new batch.

        Args:
            keys: of each layer, int32 without a dimension; every arm takes the same.
            with_operands: also describe the operands.
        """
        self._keys, self._with_operands = keys, with_operands

    def add(self, layer: str, x: Tensor, w: Tensor, dy: Tensor) -> None:
        """Count one layer of the batch; arguments of `Visit`.

        Raises:
            ConfigError: a product is zero or not finite, or a dimension cannot be grouped.
        """
        operands: dict[Letter, tuple[Tensor, Tensor]] = {"F": (x, w), "D": (dy, w), "W": (dy, x)}
        try:
            for letter, pair in operands.items():
                if self._parts[letter]:
                    self._add_gemm(layer, letter, pair)
        except ConfigError as error:
            raise ConfigError(f"{layer}: {error}") from None

    def _add_gemm(self, layer: str, letter: Letter, operands: tuple[Tensor, Tensor]) -> None:
        key = self._keys[layer]
        reference = FLOAT32.product(letter, *operands, key)
        summed = _summed(letter, reference)
        self._reference_sums.setdefault((layer, letter), torch.zeros_like(summed)).add_(summed)
        for part in set(self._parts[letter].values()):
            product = Arithmetic(part, prepare=self._prepare).product(letter, *operands, key)
            new = _Batches(torch.zeros_like(summed))
            batches = self._batches.setdefault((layer, letter, part), new)
            batches.product_sum += _summed(letter, product)
            batches.errors.append(product_errors(product, reference))
            if self._with_operands:
                batches.operands.append(operand_statistics(letter, operands, part, key))

    def rows(self, experiment: str, step: int, layers: Sequence[str]) -> list[ErrorStatistics]:
        """One for every layer, GEMM and arm that does not multiply it in float32."""
        return [
            self._row(experiment, step, layer, letter, arm)
            for layer in layers
            for letter in LETTERS
            for arm in self._parts[letter]
        ]

    def _row(
        self, experiment: str, step: int, layer: str, letter: Letter, arm: str
    ) -> ErrorStatistics:
        batches = self._batches[layer, letter, self._parts[letter][arm]]
        reference_sum = self._reference_sums[layer, letter]
        sides = list(zip(*batches.operands, strict=True))
        noise = sum(one.error_norm for one in batches.errors)
        return ErrorStatistics(
            experiment=experiment,
            arm=arm,
            step=step,
            layer=layer,
            gemm=letter,
            relative_error=fmean(one.relative_error for one in batches.errors),
            systematic_error=product_errors(batches.product_sum, reference_sum).relative_error,
            cosine=fmean(one.cosine for one in batches.errors),
            shrinkage=fmean(one.shrinkage for one in batches.errors),
            underflow_frac=[_mean([one.underflow_frac for one in side]) for side in sides],
            saturation_frac=[_mean([one.saturation_frac for one in side]) for side in sides],
            kurtosis=[fmean(one.kurtosis for one in side) for side in sides],
            gradient_to_noise=sum(one.reference_norm for one in batches.errors) / noise
            if letter == "W" and noise
            else None,
        )


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
            if not visit_operands(model, tokens, layers, found.add):
                return
        self.errors += found.rows(self._name, step, layers)
        self.unmeasured_steps.remove(step)


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
        origin=begun,
    )


def _matrix(values: Tensor) -> Tensor:
    return values.reshape(-1, values.shape[-1]).to(torch.float32)


def _summed(letter: Letter, product: Tensor) -> Tensor:
    """What batches share: all of dW; of the others, whose rows are tokens, the sum over these."""
    return product if letter == "W" else product.sum(0)


def _mean(shares: Sequence[float | None]) -> float | None:
    known = [share for share in shares if share is not None]
    return fmean(known) if known else None


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
