"""Training one arm with one seed on torchtitan, to the record that our own trainer writes.

torchtitan steps, shares, checkpoints and computes the losses. What is ours is added around a
step: keys of random numbers before it, the evaluations of the study, the end where a run
diverges, and the losses of all steps, which go into the checkpoints beside torchtitan's state.
"""

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter
from torch import distributed as torch_distributed
from torchtitan.components.metrics import MetricsProcessor
from torchtitan.components.validate import Validator
from torchtitan.trainer import Trainer

from blockwise.mxfp4 import distributed
from blockwise.mxfp4.checkpoint import Progress
from blockwise.mxfp4.conversion import Conversion, conversion_of
from blockwise.mxfp4.corpus import TokenCorpus
from blockwise.mxfp4.records import Evaluation, RunSpec, TrainingRun
from blockwise.mxfp4.titan.settings import (
    num_validation_steps,
    trainer_settings,
    validation_text,
)
from blockwise.mxfp4.train import (
    Report,
    divergence_of,
    evaluates_differently,
    finite,
    record_of,
)

NOT_FINITE = "Loss is not finite"  # how torchtitan 0.3.0 ends such a run
PROGRESS = TypeAdapter(Progress)


class DivergedError(Exception):
    """Ends the run; its text says why."""


class KeptMetrics(MetricsProcessor):
    """torchtitan's, which also keeps the last values."""

    @dataclass(kw_only=True, slots=True)
    class Config(MetricsProcessor.Config):
        """As torchtitan's."""

    loss = math.nan
    gradient_norm = math.nan
    validation_loss = math.nan

    def log(
        self,
        step: int,
        global_avg_loss: float,
        global_max_loss: float,
        grad_norm: float,
        extra_metrics: dict[str, Any] | None = None,
    ) -> None:
        """Keep a step's loss and gradient norm."""
        super().log(step, global_avg_loss, global_max_loss, grad_norm, extra_metrics)
        self.loss, self.gradient_norm = global_avg_loss, grad_norm

    def log_validation(
        self, loss: float, step: int, extra_metrics: dict[str, Any] | None = None
    ) -> None:
        """Keep a validation loss."""
        super().log_validation(loss, step, extra_metrics)
        self.validation_loss = loss


class StudyValidator(Validator):
    """torchtitan's, at the steps that the study names and no others."""

    @dataclass(kw_only=True, slots=True)
    class Config(Validator.Config):
        """As torchtitan's."""

    def should_validate(self, step: int) -> bool:
        """Never: the trainer asks."""
        del step
        return False


class StudyTrainer(Trainer):
    """torchtitan's trainer with the study's keys, evaluations and ends."""

    @dataclass(kw_only=True, slots=True)
    class Config(Trainer.Config):
        """The run, and who is told of its steps."""

        spec: RunSpec
        report: Report

    def __init__(self, config: Config) -> None:
        self.spec, self._report = config.spec, config.report
        self.progress = Progress()
        self._is_noted = False
        super().__init__(config)
        self.mx: Conversion = conversion_of(self.model, config.spec.seed)

    def note_start(self) -> None:
        """Record how many processes train from here on, once: torchtitan loads in between."""
        if not self._is_noted:
            self.progress.process_counts.append(distributed.num_processes())
            self._is_noted = True

    @property
    def model(self) -> Any:
        """The one part of the model: nothing is pipelined."""
        return self.model_parts[0]

    def train_step(self, data_iterator: Iterator[Any]) -> None:
        """Evaluate if it is time, then take a step.

        Raises:
            DivergedError: the run has diverged.
        """
        assert self.progress.step == self.step - 1, "steps and records are out of step"
        training = self.spec.training
        self.note_start()
        if self.progress.step % training.evaluate_every_steps == 0:
            self.evaluate()
        begin_s = time.perf_counter()
        try:
            with self.mx.step(self.progress.step):
                super().train_step(data_iterator)
        except RuntimeError as error:
            if NOT_FINITE not in str(error):
                raise
            raise DivergedError(str(error)) from error
        metrics = self.metrics_processor
        self.progress.step = self.step
        self.progress.train_losses.append(metrics.loss)
        self.progress.gradient_norms.append(metrics.gradient_norm)
        self.progress.train_s += time.perf_counter() - begin_s
        self._report(training.batch_sequences * self.spec.model.sequence_tokens, metrics.loss)
        divergence = divergence_of(self.progress.train_losses, self.spec.optimizer.warmup_steps)
        if divergence is not None:
            raise DivergedError(divergence)

    def evaluate(self) -> None:
        """Record the validation loss, as the arm computes it and unquantized, once a step."""
        if self.progress.is_evaluated():
            return
        with self.mx.step(self.progress.step, "evaluation"):
            quantized = unquantized = self._validation_loss()
        if evaluates_differently(self.spec.recipe):
            with self.mx.exact():
                unquantized = self._validation_loss()
        self.progress.evaluations.append(
            Evaluation(
                step=self.progress.step,
                quantized_loss=finite(quantized),
                unquantized_loss=finite(unquantized),
            )
        )

    def _validation_loss(self) -> float:
        self.validator.validate(self.model_parts, self.progress.step)
        return float(self.metrics_processor.validation_loss)

    def state_dict(self) -> dict[str, Any]:
        """The state of torchtitan and what has been recorded."""
        return {
            **super().state_dict(),
            "progress": json.dumps(PROGRESS.dump_python(self.progress, mode="json")),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from such a state."""
        super().load_state_dict(state_dict)
        self.progress = PROGRESS.validate_json(state_dict["progress"])


def train(
    spec: RunSpec,
    corpus: TokenCorpus,
    checkpoint: Path,
    *,
    is_compiled: bool,
    report: Report = lambda num_tokens, loss: None,
) -> TrainingRun:
    """Train to the end, or to where the run diverges; arguments as of `mxfp4.train.train`.

    Raises:
        ConfigError: a batch that cannot be shared, or a recipe that cannot be computed here.
    """
    with _own_group(spec.device):
        trainer = _trainer(spec, corpus, checkpoint, is_compiled=is_compiled, report=report)
        divergence = None
        try:
            trainer.train()
            trainer.note_start()  # a run that was killed after its last step takes none
            trainer.evaluate()
        except DivergedError as error:
            divergence = str(error)
        finally:
            trainer.close()
        num_parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
        return record_of(
            spec,
            trainer.progress,
            num_parameters=num_parameters,
            num_converted_layers=len(trainer.mx.layers),
            divergence=divergence,
        )


def _trainer(
    spec: RunSpec, corpus: TokenCorpus, checkpoint: Path, *, is_compiled: bool, report: Report
) -> StudyTrainer:
    settings = trainer_settings(
        spec,
        corpus,
        num_processes=distributed.num_processes(),
        folder=str(checkpoint),
        is_compiled=is_compiled,
    )
    validator = StudyValidator.Config(
        enable=True, steps=num_validation_steps(spec), dataloader=validation_text(spec, corpus)
    )
    metrics = KeptMetrics.Config(log_freq=1, disable_color_printing=True)
    return StudyTrainer(
        StudyTrainer.Config(
            **settings, metrics=metrics, validator=validator, spec=spec, report=report
        )
    )


@contextmanager
def _own_group(device: Literal["cpu", "cuda"]) -> Iterator[None]:
    """A process group of one, where torchrun started no more: torchtitan always has a mesh."""
    if torch_distributed.is_initialized():
        yield
        return
    os.environ.setdefault("LOCAL_RANK", "0")
    backend = "nccl" if device == "cuda" else "gloo"
    store = torch_distributed.HashStore()  # type: ignore[attr-defined]  # exported unsaid
    torch_distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        torch_distributed.destroy_process_group()
