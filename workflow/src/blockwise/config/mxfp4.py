"""The MXFP4 study: one Llama, one corpus, arms that are recipes, and what is measured on them."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from blockwise.config.base import ConfigModel, Name
from blockwise.config.corpora import ByteTokenizer, Corpus, Tokenizer
from blockwise.config.mxfp4_studies import Study
from blockwise.config.pretrained import (
    DescentExperiment,
    LayerErrorsExperiment,
    Pretrained,
    PretrainedExperiment,
    Seed,
)
from blockwise.config.recipes import GROUP_SIZE, Precision, Recipe

MIN_PROCESSES_OF_A_NODE = (
    2  # Slurm's executor plugin refuses fewer where a job starts its own steps
)

MIN_HORIZON = 1.4  # METHOD: a 26% overhead must not be censored


class LlamaShape(ConfigModel):
    """Sizes of the Llama that is trained."""

    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    num_layers: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    num_key_value_heads: int = Field(gt=0)
    sequence_tokens: int = Field(gt=0)
    rope_theta: float = Field(10000.0, gt=0)

    def num_parameters(self, vocabulary: int) -> int:
        """Of `mxfp4.model.Llama`: embedding and head apart, norms included."""
        head_size = self.hidden_size // self.num_attention_heads
        attention = 2 * self.hidden_size * (self.hidden_size + head_size * self.num_key_value_heads)
        layer = attention + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size
        return self.num_layers * layer + 2 * vocabulary * self.hidden_size + self.hidden_size

    @model_validator(mode="after")
    def _sizes_fit(self) -> "LlamaShape":
        for name in ("hidden_size", "intermediate_size"):
            if getattr(self, name) % GROUP_SIZE:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; MXFP4 groups {GROUP_SIZE} values, so it "
                    f"must be a multiple of {GROUP_SIZE}"
                )
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} does not give {self.num_attention_heads} heads "
                "of an even size, which rotary positions need; change one of them"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"{self.num_attention_heads} attention heads cannot share "
                f"{self.num_key_value_heads} key-value heads evenly; make one a multiple"
            )
        if (self.hidden_size // self.num_attention_heads * self.num_key_value_heads) % GROUP_SIZE:
            raise ValueError(
                f"num_key_value_heads {self.num_key_value_heads} makes a projection that is no "
                f"multiple of {GROUP_SIZE} wide; use more of them, or larger heads"
            )
        return self


class Optimizer(ConfigModel):
    """AdamW with a warmup and a cosine down to a fraction of the peak."""

    learning_rate: float = Field(gt=0)
    final_learning_rate_frac: float = Field(0.1, ge=0, le=1)
    warmup_steps: int = Field(ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    gradient_clip_norm: float = Field(1.0, gt=0)


class Training(ConfigModel):
    """How long, on what and how often: the same for every arm of an experiment."""

    num_steps: int = Field(gt=0, description="Length of the schedule and of the run.")
    batch_sequences: int = Field(gt=0, description="Sequences a step, over all processes.")
    num_repeated_batches: int | None = Field(
        None, gt=0, description="Cycle over so many fixed batches; null: new text every step."
    )
    evaluate_every_steps: int = Field(gt=0)
    evaluation_sequences: int = Field(gt=0)
    final_evaluation_sequences: int | None = Field(
        None, gt=0, description="Evaluate on so many once more after the last step; null: not."
    )
    average_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Evaluate a moving average of the weights too, with this decay a step.",
    )

    @property
    def needs_own_trainer(self) -> bool:
        """Whether it asks for what torchtitan does not do."""
        return (self.average_decay, self.final_evaluation_sequences) != (None, None)

    checkpoint_every_steps: int = Field(gt=0)


class TrainerKind(StrEnum):
    """Whose code takes the steps."""

    OWN = "own"
    TORCHTITAN = "torchtitan"


class TrainingExperiment(ConfigModel):
    """Trains every arm with every seed; all arms of a seed share start, data and schedule."""

    arms: list[str] = Field(min_length=1)
    baselines: list[str] = Field(min_length=1, description="Arms that the others are paired with.")
    seeds: Annotated[list[Seed], Field(min_length=1)]
    training: Training
    model: LlamaShape | None = Field(None, description="Another size; null: the study's.")
    optimizer: Optimizer | None = Field(None, description="Another one; null: the study's.")

    def all_arms(self) -> list[str]:
        """Arms and baselines, each once."""
        return list(dict.fromkeys([*self.baselines, *self.arms]))


class Curve(StrEnum):
    """Which validation losses are a run's curve, along which it reaches a target."""

    QUANTIZED = "quantized"  # as the arm computes them
    AVERAGED = "averaged"  # likewise, of the averaged weights


class LadderExperiment(TrainingExperiment):
    """Tokens to a target loss, FP4 in one GEMM after the other, against each baseline."""

    study: Literal[Study.LADDER]
    null_arm: str | None = Field(
        None,
        description="A baseline's arithmetic in another order: how far it strays stands beside "
        "every effect.",
    )
    curve: Curve = Curve.QUANTIZED
    target_step: int | None = Field(
        None, gt=0, description="The target is the baseline's validation loss at this step."
    )
    target_loss: float | None = Field(
        None, gt=0, description="The target itself, in nats: one for every seed and baseline."
    )

    def all_arms(self) -> list[str]:
        """Arms, baselines and the null arm, each once."""
        null_arms = [self.null_arm] if self.null_arm else []
        return list(dict.fromkeys([*self.baselines, *null_arms, *self.arms]))

    @model_validator(mode="after")
    def _averages_are_there(self) -> "LadderExperiment":
        if self.curve is Curve.AVERAGED and self.training.average_decay is None:
            raise ValueError(
                "curve is averaged and training.average_decay is null, so no weights are averaged; "
                "set the decay, or curve: quantized"
            )
        return self

    @model_validator(mode="after")
    def _target_is_fixed_and_within_reach(self) -> "LadderExperiment":
        if (self.target_step is None) == (self.target_loss is None):
            given = "neither is" if self.target_step is None else "both are"
            raise ValueError(
                f"{given} given of target_step and target_loss; name one: the step whose loss of "
                "the baseline is the target (and set the other to null), or the loss itself"
            )
        if self.target_step and self.training.num_steps < MIN_HORIZON * self.target_step:
            raise ValueError(
                f"num_steps {self.training.num_steps} is under {MIN_HORIZON} times target_step "
                f"{self.target_step}, so a slow arm could not be told from one that never gets "
                "there; raise num_steps or lower target_step"
            )
        return self


class InterventionExperiment(TrainingExperiment):
    """Remedies on repeated batches, paired by seed with the unquantized arm."""

    study: Literal[Study.INTERVENTIONS]


class DiagnosticsExperiment(ConfigModel):
    """Errors of every arm on one shared trajectory of the baseline: same x, w and dy for all."""

    study: Literal[Study.DIAGNOSTICS, Study.SCALE_RULES]
    baseline: str = Field("fp32", description="The arm whose training gives the trajectory.")
    arms: list[str] = Field(min_length=1)
    seed: Seed = 0
    training: Training
    measure_at_steps: list[int] = Field(min_length=1)
    num_batches: int = Field(gt=1, description="Batches over which an error counts as systematic.")

    @model_validator(mode="after")
    def _steps_are_reached(self) -> "DiagnosticsExperiment":
        if max(self.measure_at_steps) > self.training.num_steps:
            raise ValueError(
                f"measure_at_steps {max(self.measure_at_steps)} is beyond num_steps "
                f"{self.training.num_steps}; lower it or train longer"
            )
        return self


class OutlierExperiment(ConfigModel):
    """Error of one GEMM on synthetic operands with token outliers and channel means."""

    study: Literal[Study.OUTLIERS]
    arms: list[str] = Field(min_length=1)
    seeds: Annotated[list[Seed], Field(min_length=1)]
    num_tokens: int = Field(512, gt=0, multiple_of=GROUP_SIZE)
    num_features: int = Field(256, gt=0, multiple_of=GROUP_SIZE)
    outlier_sizes: list[float] = Field(min_length=1, description="In standard deviations.")
    outlier_token_frac: float = Field(0.01, gt=0, le=1)


class SpeedExperiment(ConfigModel):
    """Cost of a training step of each arm against the baselines, interleaved."""

    study: Literal[Study.SPEED]
    arms: list[str] = Field(min_length=1)
    baselines: list[str] = Field(min_length=1)
    batch_sequences: int = Field(gt=0)
    num_rounds: int = Field(gt=1, description="Rounds in which every arm takes one step.")


Experiment = Annotated[
    LadderExperiment
    | InterventionExperiment
    | DiagnosticsExperiment
    | LayerErrorsExperiment
    | DescentExperiment
    | OutlierExperiment
    | SpeedExperiment,
    Field(discriminator="study"),
]


class MXFP4(ConfigModel):
    """Everything about the training study."""

    backend: Literal["emulated", "native"] = "emulated"
    device: Literal["cpu", "cuda"] = "cpu"
    compiled: bool = Field(True, description="Compile what quantizes; the same bits, faster.")
    trainer: TrainerKind = Field(
        TrainerKind.OWN, description="Who trains the runs; torchtitan is installed apart."
    )
    num_processes: int = Field(1, gt=0, description="torchrun + FSDP2 where more than one.")
    activation_checkpointing: bool = Field(
        False,
        description="Keep each layer's input only and compute the rest again in the backward "
        "pass, logits in parts: less memory, more time.",
    )
    num_nodes: int = Field(
        1, gt=0, description="Nodes that share the processes of a training job; needs Slurm."
    )
    priority: Literal["normal", "idle"] = Field(
        "normal",
        description="idle: trainings take what others leave, and stand aside while anything timed "
        "plays on the machine.",
    )
    keeps_records: bool = Field(
        False,
        description="Finished runs are also kept in results/reference/PROFILE/records, to be "
        "committed, and runs that are kept there are not trained again.",
    )
    jobs: Literal["per_experiment", "per_seed", "per_run"] = Field(
        "per_experiment",
        description="What one process trains: starting and compiling cost as much as a small run.",
    )
    converted: list[str] = Field(["layers.*"], description="Patterns of the layers that quantize.")
    model: LlamaShape
    corpus: Corpus
    tokenizer: Tokenizer = ByteTokenizer(kind="bytes")
    optimizer: Optimizer
    pretrained: Pretrained | None = Field(
        None, description="A published model, for the experiments that measure on one."
    )
    arms: Annotated[dict[str, Recipe], Field(min_length=1)]
    experiments: Annotated[dict[Name, Experiment], Field(min_length=1)]
    caption: str = Field(description="Scale of the study, shown in every table and figure.")

    @field_validator("arms")
    @classmethod
    def _names_say_what_arms_do(cls, arms: Mapping[str, Recipe]) -> Mapping[str, Recipe]:
        for name, recipe in arms.items():
            if name != recipe.name:
                raise ValueError(f"the arm {name!r} has the recipe of {recipe.name!r}; rename it")
        return arms

    @model_validator(mode="after")
    def _parts_fit_together(self) -> "MXFP4":
        problems = self._node_problems()
        problems += [
            f"experiments.{name} names the arm {arm!r}, which is not in arms: "
            f"{', '.join(sorted(self.arms))}"
            for name, experiment in self.experiments.items()
            for arm in named_arms(experiment)
            if arm not in self.arms
        ]
        problems += [
            f"experiments.{name} measures on a published model, and mxfp4.pretrained names none; "
            "add it, or set the experiment to null"
            for name, experiment in self.experiments.items()
            if isinstance(experiment, PretrainedExperiment) and self.pretrained is None
        ]
        for name, experiment in self.experiments.items():
            problems += [f"experiments.{name}: {text}" for text in self._problems_of(experiment)]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def trained_in(self, experiment: "TrainingExperiment") -> "MXFP4":
        """The study with the model and the optimizer that an experiment trains."""
        own = {"model": experiment.model, "optimizer": experiment.optimizer}
        return self.model_copy(update={name: one for name, one in own.items() if one is not None})

    def _node_problems(self) -> list[str]:
        if self.num_nodes == 1:
            return []
        per_node, rest = divmod(self.num_processes, self.num_nodes)
        if rest or per_node < MIN_PROCESSES_OF_A_NODE:
            return [
                f"num_processes {self.num_processes} on num_nodes {self.num_nodes}: every node "
                f"takes as many, and at least {MIN_PROCESSES_OF_A_NODE}; make it a multiple, or "
                "lower num_nodes"
            ]
        return []

    def _problems_of(self, experiment: Experiment) -> list[str]:
        if (
            isinstance(experiment, TrainingExperiment)
            and self.trainer == TrainerKind.TORCHTITAN
            and experiment.training.needs_own_trainer
        ):
            return [
                "torchtitan averages no weights and evaluates no last time: set average_decay and "
                "final_evaluation_sequences to null, or trainer: own"
            ]
        sequences = _batch_sequences(experiment)
        if sequences is None:
            return []
        if sequences % self.num_processes:
            return [
                f"batch_sequences {sequences} cannot be shared by {self.num_processes} processes; "
                "make it a multiple"
            ]
        num_tokens = sequences // self.num_processes * self.model.sequence_tokens
        groups_tokens = any(
            self.arms[arm].groups_tokens for arm in named_arms(experiment) if arm in self.arms
        )
        if groups_tokens and num_tokens % GROUP_SIZE:
            return [
                f"a step has {num_tokens} tokens a process, and an arm groups them by "
                f"{GROUP_SIZE}; make batch_sequences x sequence_tokens a multiple of it"
            ]
        return []


def named_arms(experiment: Experiment) -> list[str]:
    """Every arm that an experiment names, each once."""
    if isinstance(experiment, TrainingExperiment | PretrainedExperiment):
        return experiment.all_arms()
    if isinstance(experiment, DiagnosticsExperiment):
        return list(dict.fromkeys([experiment.baseline, *experiment.arms]))
    if isinstance(experiment, SpeedExperiment):
        return list(dict.fromkeys([*experiment.baselines, *experiment.arms]))
    return list(experiment.arms)


def _batch_sequences(experiment: Experiment) -> int | None:
    if isinstance(experiment, SpeedExperiment):
        return experiment.batch_sequences
    if isinstance(experiment, OutlierExperiment | PretrainedExperiment):
        return None
    return experiment.training.batch_sequences


def is_quantized(recipe: Recipe) -> bool:
    """Whether an arm differs from float32 arithmetic."""
    return recipe.precision != Precision.FP32
