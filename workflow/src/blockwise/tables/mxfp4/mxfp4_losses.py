"""`mxfp4_losses.csv`: loss curves, one row an evaluation of a run.

Beside each validation loss stands the mean of the training losses since the evaluation before:
smooth enough to be read, and of steps that no other row counts.
"""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from blockwise.tables.columns import Column, ColumnKind, count, frame, number, tokens
from blockwise.tables.inputs import LoadedRun, TableInputs
from blockwise.tables.mxfp4.parts.training import ARM, SCOPE, SEED

COLUMNS: tuple[Column, ...] = (
    *SCOPE,
    ARM,
    SEED,
    count("step", "Optimizer steps done.", unit=""),
    tokens("train_tokens", "Tokens trained on until then, repeated ones each time."),
    number(
        "quantized_loss_nats",
        "Validation loss a token, as the arm computes it; empty where it is not finite.",
        ColumnKind.SAMPLED,
        "nats",
    ),
    number(
        "unquantized_loss_nats",
        "Validation loss a token, the weights multiplied in float32; empty likewise.",
        ColumnKind.SAMPLED,
        "nats",
    ),
    number(
        "train_loss_nats",
        "Mean training loss a token of the steps since the evaluation before; empty at the start.",
        ColumnKind.SAMPLED,
        "nats",
    ),
)


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row an evaluation of a run, in the order of runs and steps."""
    if inputs.mxfp4 is None:
        return frame([], COLUMNS)
    caption = inputs.mxfp4.caption
    return frame([row for one in inputs.runs for row in _rows(caption, one)], COLUMNS)


def _rows(caption: str, loaded: LoadedRun) -> Iterator[dict[str, Any]]:
    run = loaded.run
    step_before = 0
    for evaluation in run.evaluations:
        losses = run.train_losses[step_before : evaluation.step]
        yield {
            "experiment": loaded.experiment,
            "caption": caption,
            "num_parameters": run.num_parameters,
            "arm": loaded.arm,
            "seed": run.spec.seed,
            "step": evaluation.step,
            "train_tokens": evaluation.step * run.tokens_per_step,
            "quantized_loss_nats": evaluation.quantized_loss,
            "unquantized_loss_nats": evaluation.unquantized_loss,
            "train_loss_nats": sum(losses) / len(losses) if losses else None,
        }
        step_before = evaluation.step
