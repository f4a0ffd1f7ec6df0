"""The MXFP4 study's part of the bill: its runs, steps and tokens, and hours from FLOPs."""

from copy import copy

from blockwise.artifacts import digest
from blockwise.config.mxfp4 import (
    MXFP4,
    DiagnosticsExperiment,
    OutlierExperiment,
    SpeedExperiment,
    Training,
    TrainingExperiment,
    is_quantized,
    named_arms,
)
from blockwise.config.pretrained import (
    DescentExperiment,
    LayerErrorsExperiment,
    Pretrained,
    PretrainedExperiment,
)
from blockwise.estimate.bill import DiskLine, Line
from blockwise.estimate.compaction_bill import GB, HOUR_S, Notes, hours_of
from blockwise.estimate.earlier import EarlierRun
from blockwise.estimate.hardware import Device
from blockwise.mxfp4.shared_passes import shared_passes
from blockwise.run.job_resources import assumed_vocabulary
from blockwise.run.training_pipeline import TrainingPipeline

EMULATION_FACTOR = {True: 1.5, False: 2.5}
"""A step of a quantized arm over a plain one, by whether it is compiled; native FP4: no more than
bf16. Measured on two cores: 1.3 to 1.9 compiled, 4 eager with other libraries."""
RECOMPUTING_FACTOR = 4 / 3  # one more forward pass, which is a third of a step
SMALL_STEP_S = 0.007  # calls of a step that computes next to nothing, two cores
JOB_START_S = 15.0  # imports, data, compiling: measured on two cores
CHECKPOINT_BYTES_PER_PARAMETER = 12  # float32 weights and both moments of AdamW
SMALL_VOCABULARY = 1 << 16  # up to here a token takes two bytes on disk
OUTLIER_S = 10.0  # the whole stress on one core
STDLIB_TOKENS = 30e6  # bytes of the standard library's sources, about


class TrainingBill:
    """Runs, tokens and hours of a study.

    Args:
        study: the study.
        earlier: measured seconds of a step, by arm.
        device: what it trains on.
        notes: filled on the way.
    """

    def __init__(self, study: MXFP4, earlier: EarlierRun, device: Device, notes: Notes) -> None:
        self._study, self._device = study, device
        self._pipeline = TrainingPipeline(study)
        self._step_s = earlier.train_step_s()
        self._vocabulary = vocabulary = assumed_vocabulary(study.tokenizer)
        self.num_parameters = study.model.num_parameters(vocabulary)
        known = f"steps of {earlier.name} where it trained the arm, else " if self._step_s else ""
        notes.assume(
            f"mxfp4: {known}6 FLOPs a parameter and token, on {self.num_devices} x {device.words}; "
            f"emulated arms take {EMULATION_FACTOR[study.compiled]} times that, native none"
            + ("; activations computed again: a third more" * study.activation_checkpointing)
        )
        weights_gb = CHECKPOINT_BYTES_PER_PARAMETER * self.num_parameters / self.num_devices / GB
        if weights_gb * GB > device.memory_bytes:
            notes.warn(
                f"memory: mxfp4: weights and optimizer take {weights_gb:.3g} GB a device, which "
                f"has {device.memory_bytes / GB:.3g} GB; raise mxfp4.num_processes"
            )

    @property
    def num_devices(self) -> int:
        """Processes, one a device or core."""
        return self._study.num_processes

    def lines(self) -> list[Line]:
        """A line an experiment."""
        jobs = [name for name, _ in self._pipeline.runs()]
        lines = []
        for name, experiment in self._study.experiments.items():
            match experiment:
                case TrainingExperiment():
                    bill = self._of(experiment)
                    lines.append(bill._training(name, experiment, jobs.count(name)))
                case DiagnosticsExperiment():
                    lines.append(self._diagnostics(name, experiment))
                case SpeedExperiment():
                    num_steps = (experiment.num_rounds + 1) * len(named_arms(experiment))
                    lines.append(self._measured(name, num_steps, experiment.batch_sequences))
                case PretrainedExperiment():
                    lines.append(self._published(name, experiment))
                case OutlierExperiment():
                    lines.append(self._measured(name, 0, 0, OUTLIER_S))
        return lines

    def _of(self, experiment: TrainingExperiment) -> "TrainingBill":
        """The bill of the model that an experiment trains; other sizes have no measured steps."""
        if experiment.model is None:
            return self
        own = copy(self)
        own._study = self._study.trained_in(experiment)
        own.num_parameters = experiment.model.num_parameters(self._vocabulary)
        own._step_s = {}
        return own

    def disk(self) -> list[DiskLine]:
        """Corpus files, and the checkpoint that each unfinished run keeps."""
        corpus, source = self._study.corpus, "max_train_tokens"
        tokens = STDLIB_TOKENS
        if corpus.kind == "hub":
            tokens = float(corpus.max_train_tokens)
        else:
            source = "assumed: the size of the standard library's sources"
        width = 2 if self._vocabulary <= SMALL_VOCABULARY else 4
        checkpoint = CHECKPOINT_BYTES_PER_PARAMETER * self.num_parameters / GB
        return [
            DiskLine(what="mxfp4 corpus", disk_gb=width * tokens / GB, source=source),
            DiskLine(
                what="mxfp4 checkpoint, for each run in flight",
                disk_gb=checkpoint,
                source="float32 weights and two moments",
            ),
        ]

    def _training(self, name: str, experiment: TrainingExperiment, num_jobs: int) -> Line:
        training = experiment.training
        runs = {
            digest(
                [training.model_dump(), self._study.arms[arm].model_dump(mode="json"), seed]
            ): arm
            for seed in experiment.seeds
            for arm in experiment.all_arms()
        }
        seconds = sum(self._run_s(arm, training) for arm in runs.values())
        return self._trained("training", name, (len(runs), num_jobs), training, seconds)

    def _diagnostics(self, name: str, experiment: DiagnosticsExperiment) -> Line:
        training = experiment.training
        batches = len(experiment.measure_at_steps) * experiment.num_batches
        measured = batches * sum(
            self._step_of(arm, training.batch_sequences) for arm in experiment.arms
        )
        seconds = self._run_s(experiment.baseline, training) + measured
        return self._trained("measurements", name, (1, 1), training, seconds)

    def _published(self, name: str, experiment: PretrainedExperiment) -> Line:
        """A measurement on a published model: passes, a product for every arm, evaluations."""
        pretrained = self._study.pretrained
        assert pretrained is not None, name
        num_jobs, num_cells, tokens, products = 1, 1, 0.0, 0.0
        if isinstance(experiment, LayerErrorsExperiment):
            num_jobs = num_cells = experiment.num_parts
            tokens = experiment.num_batches * experiment.batch_sequences
            products = tokens * sum(self._gemms_of(arm) for arm in ["fp32", *experiment.arms])
            tokens *= num_jobs  # each part goes through the whole model
        elif isinstance(experiment, DescentExperiment):
            num_jobs = num_cells = len(experiment.starts)
            arms = {arm: self._study.arms[arm] for arm in experiment.all_arms()}
            averaged = num_jobs * experiment.num_micro_batches * experiment.micro_batch_sequences
            tokens = averaged * len(shared_passes(arms))
            tokens += num_jobs * experiment.evaluation_sequences * (1 + 2 * len(arms)) / 2
            products = averaged * len(arms)
        return self._published_line(name, pretrained, (num_jobs, num_cells), tokens, products)

    def _published_line(
        self,
        name: str,
        pretrained: Pretrained,
        jobs: tuple[int, int],
        num_passes: float,
        num_products: float,
    ) -> Line:
        """The line of so many sequences through the model and through one GEMM of all layers.

        A pass has no gradients of weights, so it is two thirds of a step.
        """
        flops = pretrained.sequence_tokens * pretrained.num_parameters
        passes, products = 4 * flops * num_passes, 2 * flops * num_products
        factor = EMULATION_FACTOR[self._study.compiled]
        seconds = (passes + factor * products) / self._device.flops
        return Line(
            stage="measurements",
            backbone="mxfp4",
            dataset="",
            experiment=name,
            num_jobs=jobs[0],
            num_cells=jobs[1],
            num_steps=0,
            train_tokens=0,
            flops=passes + products,
            **self._hours(seconds + jobs[0] * JOB_START_S),
        )

    def _gemms_of(self, arm: str) -> int:
        """How many of the three products an arm has measured."""
        recipe = self._study.arms.get(arm)
        return len(recipe.gemms) if recipe is not None and recipe.gemms else 3

    def _measured(
        self, name: str, num_steps: int, batch_sequences: int, seconds: float = 0.0
    ) -> Line:
        tokens = num_steps * batch_sequences * self._study.model.sequence_tokens
        flops = self._flops(tokens)
        seconds += num_steps * self._step_of("", batch_sequences) if num_steps else 0.0
        return Line(
            stage="measurements",
            backbone="mxfp4",
            dataset="",
            experiment=name,
            num_jobs=1,
            num_cells=1,
            num_steps=num_steps,
            train_tokens=tokens,
            flops=flops,
            **self._hours(seconds + JOB_START_S),
        )

    def _trained(
        self, stage: str, name: str, runs: tuple[int, int], training: Training, seconds: float
    ) -> Line:
        """The line of so many runs in so many jobs."""
        num_runs, num_jobs = runs
        num_steps = num_runs * training.num_steps
        tokens = num_steps * training.batch_sequences * self._study.model.sequence_tokens
        evaluated = num_runs * _evaluation_tokens(training, self._study.model.sequence_tokens)
        return Line(
            stage=stage,
            backbone="mxfp4",
            dataset="",
            experiment=name,
            num_jobs=num_jobs,
            num_cells=num_runs,
            num_steps=num_steps,
            train_tokens=tokens,
            flops=self._flops(tokens) + self._flops(evaluated) / 3,
            **self._hours(seconds + num_jobs * JOB_START_S),
        )

    def _run_s(self, arm: str, training: Training) -> float:
        per_step = self._step_of(arm, training.batch_sequences)
        per_token = per_step / (training.batch_sequences * self._study.model.sequence_tokens)
        evaluated = _evaluation_tokens(training, self._study.model.sequence_tokens)
        # A forward pass is a third of a step; measured steps leave evaluation out.
        return training.num_steps * per_step + evaluated * per_token / 3

    def _step_of(self, arm: str, batch_sequences: int) -> float:
        if arm in self._step_s:
            return self._step_s[arm]
        tokens = batch_sequences * self._study.model.sequence_tokens
        seconds = self._flops(tokens) / (self.num_devices * self._device.flops)
        recipe = self._study.arms.get(arm)
        is_emulated = self._study.backend == "emulated" and (recipe is None or is_quantized(recipe))
        seconds *= RECOMPUTING_FACTOR if self._study.activation_checkpointing else 1.0
        seconds += 0.0 if self._pipeline.num_gpus() else SMALL_STEP_S
        return seconds * (EMULATION_FACTOR[self._study.compiled] if is_emulated else 1.0)

    def _flops(self, num_tokens: float) -> float:
        """Forward and backward: 6 a parameter, and attention over half of the sequence."""
        shape = self._study.model
        attention = 6 * shape.num_layers * shape.hidden_size * shape.sequence_tokens
        return num_tokens * (6 * self.num_parameters + attention)

    def _hours(self, seconds: float) -> dict[str, float]:
        gpus = self._pipeline.num_gpus()
        hours = hours_of(seconds / HOUR_S, gpus)
        processes = self.num_devices * self._pipeline.threads()
        return hours if gpus else {**hours, "cpu_h": seconds / HOUR_S * processes}


def _evaluation_tokens(training: Training, sequence_tokens: int) -> int:
    """Before the first step, every so many, after the last, and once more; averages too."""
    evaluations = 1 + -(-training.num_steps // training.evaluate_every_steps)
    sequences = evaluations * training.evaluation_sequences
    sequences += training.final_evaluation_sequences or 0
    passes = 1 if training.average_decay is None else 2
    return passes * sequences * sequence_tokens
