"""Training one arm with one seed, from initial weights to its record.

All arms of a seed start from the same weights and see the same batches under the same schedule,
so that they differ by arithmetic alone. A step depends on what the checkpoint holds and on
nothing else: a run that was killed continues from its last checkpoint and ends with the losses of
one that was not. A run that diverges is a result: it ends with the step and the reason.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Literal

import torch
from torch import Tensor, nn

from blockwise.config.mxfp4 import is_quantized
from blockwise.config.recipes import Precision, Recipe
from blockwise.mxfp4 import distributed
from blockwise.mxfp4.checkpoint import Progress, load_checkpoint, save_checkpoint
from blockwise.mxfp4.conversion import Conversion, convert
from blockwise.mxfp4.corpus import TokenCorpus
from blockwise.mxfp4.memory import keep_freed_memory
from blockwise.mxfp4.model import Llama, initialise
from blockwise.mxfp4.origin import origin
from blockwise.mxfp4.records import Evaluation, RunSpec, TrainingRun
from blockwise.mxfp4.schedule import learning_rate

AVERAGING_WARMUP_STEPS = 10  # after t steps the average holds (1 + t) / (10 + t) of what it was
MIN_SMOOTHING_STEPS = 20  # a mean over fewer losses says little about the trend
EVALUATION_SEQUENCES, EVALUATION_TOKENS = 16, 1 << 15  # at most, at a time, to bound memory

AtStep = Callable[[int, Llama], None]
"""Told before each step, and after the last, how many are done and the model."""
Report = Callable[[int, float], None]
"""Told the tokens and the loss of each step."""


class Trainer:
    """One run: model, optimizer, random numbers and what has been recorded.

    Args:
        spec: everything that can change the run.
        corpus: its text.
        is_compiled: compile what quantizes; the same bits, faster.
    """

    def __init__(self, spec: RunSpec, corpus: TokenCorpus, *, is_compiled: bool) -> None:
        keep_freed_memory()
        self.spec, self._corpus = spec, corpus
        self.model, self.mx = build_model(spec, is_compiled=is_compiled)
        self.num_parameters = sum(parameter.numel() for parameter in self.model.parameters())
        distributed.shard(self.model, self.model.layers, "loss")
        settings = spec.optimizer
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=settings.learning_rate,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
        )
        self.averages: dict[str, Tensor] = {}
        if spec.training.average_decay is not None:
            named = self.model.named_parameters()
            self.averages = {name: values.detach().clone() for name, values in named}
        self.progress = Progress()

    def step(self) -> str | None:
        """Train on the next batch; what diverged, in words, or None."""
        begin_s = time.perf_counter()
        progress, settings = self.progress, self.spec.optimizer
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(progress.step, settings, self.spec.training.num_steps)
        self.optimizer.zero_grad()  # whoever looked at the model may have left gradients
        with self.mx.step(progress.step):
            loss = self.model.loss(self._batch())
            loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), settings.gradient_clip_norm)
        loss_value, norm_value = distributed.mean(loss.detach()), distributed.full(norm)
        if not (math.isfinite(loss_value) and math.isfinite(norm_value)):
            return f"the loss is {loss_value} and the gradient norm {norm_value}"
        self.optimizer.step()
        self._average()
        progress.step += 1
        progress.train_losses.append(loss_value)
        progress.gradient_norms.append(norm_value)
        progress.train_s += time.perf_counter() - begin_s
        return divergence_of(progress.train_losses, settings.warmup_steps)

    def evaluate(self) -> None:
        """Record the validation loss of the present step."""
        self.progress.evaluations.append(self.evaluation(self.spec.training.evaluation_sequences))

    def evaluation(self, num_sequences: int) -> Evaluation:
        """The validation loss as the arm computes it, unquantized, and of averaged weights."""
        averaged = math.nan
        with self.mx.step(self.progress.step, "evaluation"):
            quantized = unquantized = self._validation_loss(num_sequences)
            if self.averages:
                with averaged_weights(self.model, self.averages):
                    averaged = self._validation_loss(num_sequences)
        if evaluates_differently(self.spec.recipe):
            with self.mx.exact():
                unquantized = self._validation_loss(num_sequences)
        return Evaluation(
            step=self.progress.step,
            quantized_loss=finite(quantized),
            unquantized_loss=finite(unquantized),
            averaged_loss=finite(averaged),
        )

    @torch.no_grad()
    def _average(self) -> None:
        """Move the averages towards the weights; early on by more, to forget the first ones."""
        decay, step = self.spec.training.average_decay, self.progress.step
        if decay is None:
            return
        share = 1 - min(decay, (1 + step) / (AVERAGING_WARMUP_STEPS + step))
        for name, values in self.model.named_parameters():
            self.averages[name].lerp_(values, share)

    def _batch(self) -> Tensor:
        training = self.spec.training
        batch = self._corpus.train_batch(
            self.progress.step,
            self.spec.seed,
            training.batch_sequences,
            self.spec.model.sequence_tokens,
            training.num_repeated_batches,
        )
        return distributed.own_part(batch).to(self.spec.device)

    @torch.no_grad()
    def _validation_loss(self, num_sequences: int) -> float:
        sequence_tokens = self.spec.model.sequence_tokens
        sequences = self._corpus.validation_batch(num_sequences, sequence_tokens)
        size = min(max(EVALUATION_TOKENS // sequence_tokens, 1), EVALUATION_SEQUENCES)
        num_processes = distributed.num_processes()
        num_parts = -(-len(sequences) // (size * num_processes))  # in all processes as many
        total = 0.0
        for part in sequences[distributed.rank() :: num_processes].tensor_split(num_parts):
            # Sharded layers are gathered by all: who has nothing left computes and drops it.
            batch = part if len(part) else sequences[:1]
            total += float(self.model.loss(batch.to(self.spec.device))) * len(part)
        return distributed.total(total, self.spec.device) / len(sequences)


def trainer_name() -> str:
    """What records call this trainer."""
    return "own"


def train_function(_device: Literal["cpu", "cuda"]) -> Callable[..., TrainingRun]:
    """The function that trains one run."""
    return train


def train(
    spec: RunSpec,
    corpus: TokenCorpus,
    checkpoint: Path,
    *,
    is_compiled: bool,
    at_step: AtStep = lambda step, model: None,
    report: Report = lambda num_tokens, loss: None,
) -> TrainingRun:
    """Train to the end, or to where the run diverges.

    Args:
        spec: the run.
        corpus: its text.
        checkpoint: folder that is continued from, if it exists, and kept up to date.
        is_compiled: compile what quantizes.
        at_step: see `AtStep`.
        report: told the tokens and the loss of each step.

    Raises:
        ArtifactError: the checkpoint is damaged or of another run.
    """
    trainer = Trainer(spec, corpus, is_compiled=is_compiled)
    load_checkpoint(checkpoint, spec.checkpoint_key, trainer)
    training, progress = spec.training, trainer.progress
    tokens_per_step = training.batch_sequences * spec.model.sequence_tokens
    divergence: str | None = None
    while progress.step < training.num_steps and divergence is None:
        if progress.step % training.evaluate_every_steps == 0 and not progress.is_evaluated():
            trainer.evaluate()
        at_step(progress.step, trainer.model)
        divergence = trainer.step()
        report(tokens_per_step, progress.train_losses[-1] if progress.train_losses else math.nan)
        if progress.step % training.checkpoint_every_steps == 0:
            save_checkpoint(checkpoint, spec.checkpoint_key, trainer)
    final: Evaluation | None = None
    if divergence is None:
        trainer.evaluate()
        if training.final_evaluation_sequences is not None:
            final = trainer.evaluation(training.final_evaluation_sequences)
    at_step(progress.step, trainer.model)
    return record_of(
        spec,
        progress,
        num_parameters=trainer.num_parameters,
        num_converted_layers=len(trainer.mx.layers),
        divergence=divergence,
        final_evaluation=final,
    )


def build_model(spec: RunSpec, *, is_compiled: bool) -> tuple[Llama, Conversion]:
    """The Llama with the spec's initial weights and recipe, on the spec's device."""
    with torch.device("meta"):  # no memory: weights of 8B parameters are made once, in place
        model = Llama(
            spec.model,
            spec.vocab_size,
            activation_checkpointing=spec.activation_checkpointing,
        )
    model.to_empty(device=spec.device)
    initialise(model, spec.seed)
    if not is_quantized(spec.recipe):
        return model, Conversion(model, {}, spec.seed)
    return model, convert(
        model,
        spec.recipe,
        include=spec.converted,
        seed=spec.seed,
        backend=spec.backend,
        is_compiled=is_compiled,
    )


@contextmanager
def averaged_weights(model: nn.Module, averages: Mapping[str, Tensor]) -> Iterator[None]:
    """The model has its averaged weights for as long as this lasts."""
    parameters = dict(model.named_parameters())
    kept = {name: values.detach().clone() for name, values in parameters.items()}
    try:
        with torch.no_grad():
            for name, values in parameters.items():
                values.copy_(averages[name])
        yield
    finally:
        with torch.no_grad():
            for name, values in parameters.items():
                values.copy_(kept[name])


def evaluates_differently(recipe: Recipe) -> bool:
    """Whether a forward pass alone already differs from float32."""
    return is_quantized(recipe) and (
        recipe.precision != Precision.MXFP4 or recipe.fprop is not None
    )


def finite(value: float) -> float | None:
    """The value, or None where it is none."""
    return value if math.isfinite(value) else None


def divergence_of(losses: Sequence[float], warmup_steps: int) -> str | None:
    """Why a run with these losses has diverged, in words, or None."""
    window = max(MIN_SMOOTHING_STEPS, warmup_steps)
    if len(losses) <= window:
        return None
    smoothed = fmean(losses[-window:])
    if smoothed <= losses[0]:
        return None
    return (
        f"the mean loss of the last {window} steps, {smoothed:.3f}, is above the first loss, "
        f"{losses[0]:.3f}"
    )


def record_of(
    spec: RunSpec,
    progress: Progress,
    *,
    num_parameters: int,
    num_converted_layers: int,
    divergence: str | None,
    final_evaluation: Evaluation | None = None,
) -> TrainingRun:
    """The record of a run that has ended."""
    status: Literal["finished", "diverged"] = "diverged" if divergence else "finished"
    return TrainingRun(
        key=spec.key,
        spec=spec,
        num_parameters=num_parameters,
        num_converted_layers=num_converted_layers,
        tokens_per_step=spec.training.batch_sequences * spec.model.sequence_tokens,
        status=status,
        diverged_at_step=progress.step if divergence else None,
        divergence=divergence,
        train_losses=progress.train_losses,
        gradient_norms=progress.gradient_norms,
        evaluations=progress.evaluations,
        final_evaluation=final_evaluation,
        num_resumes=progress.num_resumes,
        process_counts=progress.process_counts,
        train_s=progress.train_s,
        origin=origin(spec.device),
    )
