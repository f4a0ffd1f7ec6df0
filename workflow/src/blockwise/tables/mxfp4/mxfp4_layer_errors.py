"""`mxfp4_layer_errors.csv`: what FP4 does to each GEMM of each layer, as it was measured.

The tables of the diagnostics and of the scale rules show means and ranges over layers; here every
layer has a row of its own, so that one that stands out can be named. Layers are those of a model
on the way of its training here, or of a published one.
"""

import pandas as pd

from blockwise.config.mxfp4 import DiagnosticsExperiment
from blockwise.config.pretrained import LayerErrorsExperiment
from blockwise.mxfp4.records import ErrorStatistics
from blockwise.tables.columns import Column, ColumnKind, count, frame, number, text
from blockwise.tables.inputs import TableInputs
from blockwise.tables.mxfp4.parts.gemm_errors import MEASURES
from blockwise.tables.mxfp4.parts.training import ARM, EXPERIMENT

COLUMNS: tuple[Column, ...] = (
    EXPERIMENT,
    count("step", "Steps of the baseline's training; 0 for a published model.", unit=""),
    text("layer", "Name of the linear layer in the model."),
    text("gemm", "F: Fprop, Y = X W^T; D: Dgrad, dX = dY W; W: Wgrad, dW = dY^T X."),
    ARM,
    *(
        number(f"{spread.name}{spread.suffix}", f"{spread.meaning}.", ColumnKind.SAMPLED, "1")
        for spread, _ in MEASURES
    ),
)


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row a step, layer, GEMM and arm of an experiment, in the order of measurement."""
    experiments = inputs.mxfp4.experiments if inputs.mxfp4 else {}
    measured = DiagnosticsExperiment | LayerErrorsExperiment
    return frame(
        [
            _row(error)
            for name, experiment in experiments.items()
            if isinstance(experiment, measured)
            for found in (*inputs.diagnostics, *inputs.layer_errors)
            if found.experiment == name
            for error in found.errors
        ],
        COLUMNS,
    )


def _row(error: ErrorStatistics) -> dict[str, object]:
    return {
        "experiment": error.experiment,
        "step": error.step,
        "layer": error.layer,
        "gemm": error.gemm,
        "arm": error.arm,
        **{f"{spread.name}{spread.suffix}": of(error) for spread, of in MEASURES},
    }
