"""What the MXFP4 jobs write: runs of training, and measurements.

A training run is a unit of the cell store (`training_runs/`), keyed by everything that can
change it. The other measurements are one file a job.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from blockwise.artifacts import digest
from blockwise.config.mxfp4 import LlamaShape, Optimizer, Training
from blockwise.config.recipes import Recipe

SCHEMA_VERSION: Literal[1] = 1


class Record(BaseModel):
    """Base of all records here: strict, unchanging."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Origin(Record):
    """Where a record comes from; no part of any key."""

    commit: str | None
    dirty: bool | None
    packages: dict[str, str]
    host: str
    cpu: str
    device: str  # "cpu", or the accelerator's name
    command: str
    started_at: str  # ISO 8601, UTC


class RunSpec(Record):
    """Everything that can change a training run; its digest is the run's key."""

    model: LlamaShape
    vocab_size: int
    corpus_digest: str
    tokenizer: str
    optimizer: Optimizer
    training: Training
    recipe: Recipe
    converted: list[str]
    backend: Literal["emulated", "native"]
    device: Literal["cpu", "cuda"]
    num_processes: int
    activation_checkpointing: bool
    seed: int
    trainer: str  # "own", or "torchtitan" and its version
    code_digest: str
    torch_version: str

    @property
    def key(self) -> str:
        """Name of the run in the cell store."""
        return digest(self.model_dump(mode="json"))

    @property
    def checkpoint_key(self) -> str:
        """Name of the run's checkpoints, which any number of processes may go on from."""
        return digest(self.model_dump(mode="json", exclude={"num_processes"}))


class Evaluation(Record):
    """Validation loss after a step, nats a token; None where it is not finite."""

    step: int  # optimizer steps done
    quantized_loss: float | None
    unquantized_loss: float | None
    averaged_loss: float | None = None  # of the averaged weights, as the arm computes it


class TrainingRun(Record):
    """One arm with one seed, to the end or to where it diverged."""

    schema_version: Literal[1] = SCHEMA_VERSION
    key: str
    spec: RunSpec
    num_parameters: int
    num_converted_layers: int
    tokens_per_step: int
    status: Literal["finished", "diverged"]
    diverged_at_step: int | None
    divergence: str | None  # in words
    train_losses: list[float]  # nats a token, one a step, finite ones
    gradient_norms: list[float]  # before clipping, one a step
    evaluations: list[Evaluation]  # step 0 and the last step included
    final_evaluation: Evaluation | None = None  # once more after the last step, on more text
    num_resumes: int
    process_counts: list[int] = []  # of each start; they differ where a run moved
    train_s: float  # wall time of all training steps
    origin: Origin


def run_path(store: Path, key: str) -> Path:
    """Where a finished run lies in the cell store."""
    return store / "training_runs" / key[:2] / f"{key}.json"


def record_path(records: Path, key: str) -> Path:
    """Where a finished run is kept to be committed: the same file as in the store."""
    return records / f"{key}.json"


class TrainingBatch(Record):
    """The runs that one job of an experiment selects: keys by arm and seed."""

    schema_version: Literal[1] = SCHEMA_VERSION
    experiment: str
    runs: dict[str, dict[int, str]]


class ErrorStatistics(Record):
    """Errors of one arm in one GEMM of one layer, on the shared trajectory.

    Errors compare the arm's product with float32's; shares are over the operand's elements.
    None: not defined for this arm or GEMM.
    """

    experiment: str
    arm: str
    step: int  # of the baseline's training
    layer: str
    gemm: Literal["F", "D", "W"]
    relative_error: float  # |error| / |product|, mean over batches
    systematic_error: float  # |mean error over batches| / |mean product over batches|
    cosine: float  # of product and float32 product, mean over batches
    shrinkage: float  # 1 - <product, reference> / <reference, reference>; 0: unbiased
    underflow_frac: list[float | None]  # each operand: non-zero values that became zero
    saturation_frac: list[float | None]  # each operand: scaled values beyond 6
    kurtosis: list[float]  # of each operand as quantized (after rotation); 3 for a normal one
    gradient_to_noise: float | None  # Wgrad: |dW| / |error of dW|


OperandName = Literal["x", "w", "dy"]


class LayerOperand(Record):
    """What a layer's input, weight or output gradient is like; means over batches.

    Rows of x and dy are tokens, of w output features; columns are features.
    """

    experiment: str
    step: int  # of the baseline's training; 0 for a published model
    layer: str
    operand: OperandName
    kurtosis: float  # 3 for a normal distribution
    mean_over_rows_frac: float  # share of the squared values that the mean over rows makes up
    mean_over_columns_frac: float
    row_outlier: float  # size of the largest row over that of the median one
    column_outlier: float


class Diagnostics(Record):
    """All errors of one experiment, or of some layers of it."""

    schema_version: Literal[1] = SCHEMA_VERSION
    experiment: str
    num_batches: int
    errors: list[ErrorStatistics]
    operands: list[LayerOperand] = []
    origin: Origin


class DescentSpec(Record):
    """Everything that can change what one start of a descent finds; its digest is the key.

    It names no machine and no version of the code, so that another machine goes on where one
    stopped; `measurement` is raised by hand where what is measured changes.
    """

    measurement: int
    model_digest: str
    corpus_digest: str
    layers: list[str]  # patterns
    sequence_tokens: int
    num_micro_batches: int
    micro_batch_sequences: int
    evaluation_sequences: int
    num_starts: int  # share the held-out text
    step_norm_frac: float
    signed_step_frac: float
    start: int
    recipes: list[Recipe]  # the first one's gradient is what cosines are with

    @property
    def key(self) -> str:
        """Name of the record in the cell store."""
        return digest(self.model_dump(mode="json"))


class DescentOfArm(Record):
    """One arm at one start; losses in nats a token, in float32 arithmetic unless said."""

    train_loss: float  # of the micro-batches, as the arm computes it
    gradient_norm: float
    cosine: float  # with the gradient of the first baseline
    stepped_loss: float | None  # held out, after the step of equal length; None: not finite
    signed_loss: float | None  # likewise, after the step along the signs


class DescentStart(Record):
    """All arms at one start."""

    schema_version: Literal[1] = SCHEMA_VERSION
    key: str
    spec: DescentSpec
    num_layers: int
    num_moved_weights: int
    held_out_loss: float  # of the published weights
    arms: dict[str, DescentOfArm]
    origin: Origin


class DescentOutput(Record):
    """What a job of one start leaves behind for the tables."""

    schema_version: Literal[1] = SCHEMA_VERSION
    experiment: str
    start: DescentStart


def descent_path(store: Path, key: str) -> Path:
    """Where a finished start lies in the cell store."""
    return store / "descents" / key[:2] / f"{key}.json"


class OutlierError(Record):
    """Relative error of one GEMM on synthetic operands."""

    arm: str
    seed: int
    pattern: Literal["gaussian", "token_outliers", "channel_means"]
    size: float  # of the outliers or means, in standard deviations
    relative_error: float
    underflow_frac: float  # of the left operand's values, as quantized


class Outliers(Record):
    """The outlier stress of one experiment."""

    schema_version: Literal[1] = SCHEMA_VERSION
    experiment: str
    errors: list[OutlierError]
    origin: Origin


class StepTimes(Record):
    """Wall times of one arm's training steps, one a round, in the order of rounds."""

    arm: str
    form: str  # "ours, compiled", "ours, eager", "torchao, eager" ...
    step_s: list[float]


class Speed(Record):
    """Interleaved step times of one experiment."""

    schema_version: Literal[1] = SCHEMA_VERSION
    experiment: str
    num_parameters: int
    tokens_per_step: int
    num_threads: int
    order: list[list[str]]  # arms of each round in the order in which they ran
    times: list[StepTimes]
    load_average: float
    cpu_steal_frac: float
    origin: Origin
