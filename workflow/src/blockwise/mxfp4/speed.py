"""What a training step costs: whole steps of each arm and baseline, interleaved.

    python -m blockwise.mxfp4.speed --config ... --experiment ... --output ...

Every round takes one step of each form, forward to optimizer, in an order drawn anew, so that
whatever else the machine does falls on all of them alike. The steps are those of the trainer, on
one thread and on random tokens, which cost what text costs. The first round compiles and is left
out. The plain float32 model runs as training runs it, uncompiled, and so does everything
outside the operands of the quantized GEMMs in every other form.
"""

import argparse
import importlib
import importlib.metadata
import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blockwise.artifacts import write_model
from blockwise.config.mxfp4 import (
    MXFP4,
    SpeedExperiment,
    Training,
    is_quantized,
    named_arms,
)
from blockwise.config.recipes import GROUP_SIZE, Operand, Precision, Rotation
from blockwise.errors import ConfigError, run_command
from blockwise.mxfp4.corpus import CorpusCard, TokenCorpus
from blockwise.mxfp4.encoders import vocabulary_size
from blockwise.mxfp4.operand import Place, Prepare
from blockwise.mxfp4.origin import origin
from blockwise.mxfp4.records import Speed, StepTimes
from blockwise.mxfp4.selection import experiment_of, study_of
from blockwise.mxfp4.train import Trainer
from blockwise.mxfp4.train_arm import run_spec
from blockwise.progress import WorkProgress
from blockwise.provenance import cpu_steal_frac

COMPARED_ARM = "F+D+W"  # also timed uncompiled, and with torchao's emulation
PLAIN, COMPILED, EAGER, NATIVE = "plain, eager", "ours, compiled", "ours, eager", "ours, native"
TORCHAO = "torchao, eager"  # its MXTensor cannot be compiled on the CPU
NUM_THREADS = 1
SEED = 0  # of weights, tokens and order
NUM_RANDOM_BATCHES = 8  # of different tokens; more would cost memory and change nothing


@dataclass(frozen=True)
class Form:
    """One way to compute one arm."""

    arm: str
    form: str

    @property
    def label(self) -> str:
        """As the order of a round names it."""
        return f"{self.arm} ({self.form})"


def forms_of(study: MXFP4, experiment: SpeedExperiment, *, with_torchao: bool) -> list[Form]:
    """What is timed: each arm as the study computes it, and one arm in every form."""
    ours = COMPILED if study.compiled else EAGER
    if study.backend == "native":
        ours = NATIVE
    forms = []
    for arm in named_arms(experiment):
        recipe = study.arms[arm]
        if recipe.precision == Precision.MXFP4:
            forms.append(Form(arm, ours))
        elif recipe.precision == Precision.FP8:  # its backend is the emulation in any case
            forms.append(Form(arm, COMPILED if study.compiled else EAGER))
        else:  # bf16 has nothing that is compiled
            forms.append(Form(arm, EAGER if is_quantized(recipe) else PLAIN))
        if arm == COMPARED_ARM:
            extra = [EAGER, TORCHAO] if with_torchao else [EAGER]
            forms += [Form(arm, form) for form in extra if form != ours]
    return forms


def time_steps(study: MXFP4, name: str, experiment: SpeedExperiment, vocab_size: int) -> Speed:
    """Time the training steps of one experiment.

    Args:
        study: model, optimizer and arms.
        name: of the experiment, for the record.
        experiment: which arms and how many rounds.
        vocab_size: of the model.

    Raises:
        ConfigError: an arm cannot be computed, or its step has no finite loss.
    """
    begun, load_average, steal_frac = origin(study.device), os.getloadavg()[0], cpu_steal_frac()
    torchao_prepare = None
    if COMPARED_ARM in named_arms(experiment):
        torchao_prepare = load_torchao()
        if torchao_prepare is None:
            print(f"torchao is not installed, so {COMPARED_ARM} ({TORCHAO}) is left out")
        else:
            packages = {**begun.packages, "torchao": importlib.metadata.version("torchao")}
            begun = begun.model_copy(update={"packages": packages})
    forms = forms_of(study, experiment, with_torchao=torchao_prepare is not None)
    with _threads(NUM_THREADS):
        trainers = _trainers(study, experiment, forms, vocab_size, torchao_prepare)
        order, times = _interleave(study, experiment, name, trainers)
    return Speed(
        experiment=name,
        num_parameters=next(iter(trainers.values())).num_parameters,
        tokens_per_step=experiment.batch_sequences * study.model.sequence_tokens,
        num_threads=NUM_THREADS,
        order=[[form.label for form in one] for one in order],
        times=[
            StepTimes(arm=form.arm, form=form.form, step_s=step_s) for form, step_s in times.items()
        ],
        load_average=load_average,
        cpu_steal_frac=steal_frac,
        origin=begun,
    )


def load_torchao() -> Prepare | None:
    """`prepare_operand` by torchao's MXTensor, for operands without remedies; None without it."""
    try:
        tensors: Any = importlib.import_module("torchao.prototype.mx_formats.mx_tensor")
        config: Any = importlib.import_module("torchao.prototype.mx_formats.config")
    except ImportError:
        return None
    rule = config.ScaleCalculationMode.EVEN

    def prepare(
        values: Tensor,
        place: Place,
        operand: Operand | None,
        rotation: Rotation | None,
        key: Tensor,
    ) -> Tensor:
        del key
        assert (operand, rotation) == (Operand(), None), "torchao's emulation has no remedies"
        rows = (values if place.axis == 1 else values.T).contiguous()
        packed = tensors.MXTensor.to_mx(rows, torch.float4_e2m1fn_x2, GROUP_SIZE, rule)
        result: Tensor = packed.dequantize(values.dtype)
        return result if place.axis == 1 else result.T

    return prepare


def _trainers(
    study: MXFP4,
    experiment: SpeedExperiment,
    forms: Sequence[Form],
    vocab_size: int,
    torchao_prepare: Prepare | None,
) -> dict[Form, Trainer]:
    """One for each form, with its own model; all start from the same weights."""
    num_tokens = experiment.batch_sequences * study.model.sequence_tokens
    corpus = _random_corpus(vocab_size, NUM_RANDOM_BATCHES * num_tokens + 1)
    num_rounds = experiment.num_rounds + 1
    training = Training(
        num_steps=num_rounds,
        batch_sequences=experiment.batch_sequences,
        evaluate_every_steps=num_rounds,
        evaluation_sequences=1,
        checkpoint_every_steps=num_rounds,
    )
    trainers = {}
    for form in forms:
        spec = run_spec(study, training, study.arms[form.arm], SEED, corpus.card)
        backend = "native" if form.form == NATIVE else "emulated"
        spec = spec.model_copy(update={"backend": backend})
        trainer = Trainer(spec, corpus, is_compiled=form.form == COMPILED)
        if form.form == TORCHAO:
            assert torchao_prepare is not None
            for layer in trainer.mx.layers.values():
                layer.how = replace(layer.how, prepare=torchao_prepare)
        trainers[form] = trainer
    return trainers


def _random_corpus(vocab_size: int, num_tokens: int) -> TokenCorpus:
    """Tokens drawn uniformly: a step takes no notice of what they say."""
    tokens = np.random.default_rng(SEED).integers(vocab_size, size=num_tokens)
    card = CorpusCard(
        source="random tokens",
        tokenizer="none",
        vocab_size=vocab_size,
        dtype="uint32",
        num_train_tokens=tokens.size,
        num_validation_tokens=tokens.size,
        train_sha256="",
        validation_sha256="",
    )
    return TokenCorpus(card, train=tokens, validation=tokens)


def _interleave(
    study: MXFP4, experiment: SpeedExperiment, name: str, trainers: dict[Form, Trainer]
) -> tuple[list[list[Form]], dict[Form, list[float]]]:
    """The order of each round that counts, and the step times of each form in seconds."""
    shuffler = random.Random(SEED)
    order: list[list[Form]] = []
    times: dict[Form, list[float]] = {form: [] for form in trainers}
    num_tokens = experiment.batch_sequences * study.model.sequence_tokens
    num_steps = (experiment.num_rounds + 1) * len(trainers)
    with WorkProgress(name, num_steps, unit="steps") as progress:
        for round_number in range(experiment.num_rounds + 1):
            forms = shuffler.sample(list(trainers), len(trainers))
            for form in forms:
                step_s = _timed_step(form, trainers[form])
                progress.advance(num_tokens, state=form.label)
                if round_number > 0:
                    times[form].append(step_s)
            if round_number > 0:
                order.append(forms)
    return order, times


def _timed_step(form: Form, trainer: Trainer) -> float:
    steps_done = trainer.progress.step
    _finish_work(trainer.spec.device)
    begin_s = time.perf_counter()
    ending = trainer.step()
    _finish_work(trainer.spec.device)
    step_s = time.perf_counter() - begin_s
    if trainer.progress.step == steps_done:
        raise ConfigError(
            f"{form.label} took no step after {steps_done}, so there is nothing to time: "
            f"{ending}; lower mxfp4.optimizer.learning_rate"
        )
    return step_s


def _finish_work(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


@contextmanager
def _threads(num: int) -> Iterator[None]:
    kept = torch.get_num_threads()
    torch.set_num_threads(num)
    try:
        yield
    finally:
        torch.set_num_threads(kept)


def main() -> None:
    """Command line: one experiment."""
    parser = argparse.ArgumentParser(prog="python -m blockwise.mxfp4.speed", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="resolved profile")
    parser.add_argument("--experiment", required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    study = study_of(arguments.config)
    experiment = experiment_of(study, arguments.experiment, SpeedExperiment)
    vocab_size = vocabulary_size(study.tokenizer)
    write_model(arguments.output, time_steps(study, arguments.experiment, experiment, vocab_size))


if __name__ == "__main__":
    run_command(main)
