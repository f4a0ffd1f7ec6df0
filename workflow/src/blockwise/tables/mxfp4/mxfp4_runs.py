"""`mxfp4_runs.csv`: one row a training run and experiment; the facts behind every comparison.

A run that two experiments select has a row in each, so a reader filters by experiment and never
joins. Times are wall times of whatever else the machine did: the cost of an arm is in
mxfp4_speed.
"""

from typing import Any

import pandas as pd

from blockwise.config.mxfp4 import InterventionExperiment, LadderExperiment
from blockwise.tables.columns import (
    Column,
    ColumnKind,
    count,
    flag,
    frame,
    number,
    seconds,
    text,
    tokens,
)
from blockwise.tables.inputs import LoadedRun, TableInputs
from blockwise.tables.mxfp4.parts.training import (
    ARM,
    SCOPE,
    SEED,
    final_quantized_loss,
    final_unquantized_loss,
)

COLUMNS: tuple[Column, ...] = (
    *SCOPE,
    text("study", "Study of the experiment: the table and the figure that it feeds."),
    ARM,
    flag("is_baseline", "Whether other arms of the experiment are paired with this one."),
    SEED,
    text("precision", "Arithmetic of the converted layers."),
    text("quantized_gemms", "Letters of the GEMMs in MXFP4; empty: none."),
    text("run_key", "Content key of the run: everything that can change it."),
    text("status", "finished, or diverged: a result, not a failure.", ColumnKind.SAMPLED),
    count("diverged_at_step", "Steps done when it diverged.", ColumnKind.SAMPLED, unit=""),
    text("divergence", "What diverged, in words.", ColumnKind.SAMPLED),
    count("num_steps", "Optimizer steps asked for."),
    count("num_steps_done", "Steps done.", ColumnKind.SAMPLED),
    count("batch_sequences", "Sequences of a step, over all processes."),
    tokens("sequence_tokens", "Tokens of a sequence."),
    tokens("train_tokens", "Tokens trained on, repeated ones each time.", ColumnKind.SAMPLED),
    count("num_repeated_batches", "Batches that repeat; empty: new text every step."),
    count("num_evaluations", "Validation losses taken.", ColumnKind.SAMPLED),
    number(
        "final_quantized_loss_nats",
        "Last validation loss a token, as the arm computes it; empty for a diverged run.",
        ColumnKind.SAMPLED,
        "nats",
    ),
    number(
        "final_unquantized_loss_nats",
        "Last validation loss a token, the weights multiplied in float32; empty likewise.",
        ColumnKind.SAMPLED,
        "nats",
    ),
    number(
        "max_gradient_norm",
        "Largest gradient norm before clipping; empty without a step.",
        ColumnKind.SAMPLED,
        "1",
    ),
    number("learning_rate", "Peak of the schedule.", ColumnKind.EXACT, "1"),
    count("vocab_size", "Tokens that the model knows."),
    text("tokenizer", "How text becomes tokens."),
    text("corpus_digest", "Digest of the token files."),
    count("num_converted_layers", "Linear layers that the arm's arithmetic replaces."),
    text("backend", "emulated, or native: the device's own FP4 GEMM."),
    count("num_processes", "Processes that trained together."),
    count("num_resumes", "Times it continued from a checkpoint.", ColumnKind.HOST),
    seconds("train_s", "Wall time of all training steps, alone on the machine or not."),
    text("device", "cpu, or the accelerator's name.", ColumnKind.HOST),
    text("cpu", "Processor.", ColumnKind.HOST),
    text("host", "Machine.", ColumnKind.HOST),
    text("torch_version", "Version of torch."),
    text("code_digest", "Digest of the modules on the run's import path."),
    text("commit", "Commit of the checkout.", ColumnKind.HOST),
    flag("dirty", "Whether the checkout held uncommitted changes.", ColumnKind.HOST),
)


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row a run and experiment, in the order given."""
    if inputs.mxfp4 is None:
        return frame([], COLUMNS)
    rows = []
    for one in inputs.runs:
        settings = inputs.mxfp4.experiments[one.experiment]
        assert isinstance(settings, LadderExperiment | InterventionExperiment)  # as loaded
        rows.append(_row(inputs.mxfp4.caption, settings, one))
    return frame(rows, COLUMNS)


def _row(
    caption: str, settings: LadderExperiment | InterventionExperiment, loaded: LoadedRun
) -> dict[str, Any]:
    run, spec = loaded.run, loaded.run.spec
    num_steps_done = len(run.train_losses)
    is_finished = run.status == "finished"
    return {
        "experiment": loaded.experiment,
        "caption": caption,
        "num_parameters": run.num_parameters,
        "study": settings.study,
        "arm": loaded.arm,
        "is_baseline": loaded.arm in settings.baselines,
        "seed": spec.seed,
        "precision": spec.recipe.precision,
        "quantized_gemms": "+".join(spec.recipe.gemms) or None,
        "run_key": run.key,
        "status": run.status,
        "diverged_at_step": run.diverged_at_step,
        "divergence": run.divergence,
        "num_steps": spec.training.num_steps,
        "num_steps_done": num_steps_done,
        "batch_sequences": spec.training.batch_sequences,
        "sequence_tokens": spec.model.sequence_tokens,
        "train_tokens": num_steps_done * run.tokens_per_step,
        "num_repeated_batches": spec.training.num_repeated_batches,
        "num_evaluations": len(run.evaluations),
        "final_quantized_loss_nats": final_quantized_loss(run) if is_finished else None,
        "final_unquantized_loss_nats": final_unquantized_loss(run) if is_finished else None,
        "max_gradient_norm": max(run.gradient_norms, default=None),
        "learning_rate": spec.optimizer.learning_rate,
        "vocab_size": spec.vocab_size,
        "tokenizer": spec.tokenizer,
        "corpus_digest": spec.corpus_digest,
        "num_converted_layers": run.num_converted_layers,
        "backend": spec.backend,
        "num_processes": spec.num_processes,
        "num_resumes": run.num_resumes,
        "train_s": run.train_s,
        "device": run.origin.device,
        "cpu": run.origin.cpu,
        "host": run.origin.host,
        "torch_version": spec.torch_version,
        "code_digest": spec.code_digest,
        "commit": run.origin.commit,
        "dirty": run.origin.dirty,
    }
