"""`mxfp4_operands.csv`: what the operands of each linear layer are like before any rounding.

Tails, means and outliers explain where an arm fails: a group with one large value rounds all its
others coarsely, and a deterministic rotation gathers a mean into one value.
"""

import pandas as pd

from blockwise.config.mxfp4 import DiagnosticsExperiment
from blockwise.config.pretrained import LayerErrorsExperiment
from blockwise.tables.columns import Column, ColumnKind, count, frame, number, text
from blockwise.tables.inputs import TableInputs
from blockwise.tables.mxfp4.parts.training import EXPERIMENT

STATISTICS = {
    "kurtosis": "Kurtosis over all elements; 3 for a normal distribution",
    "mean_over_rows_frac": "Share of the squared values that remains when every row is replaced "
    "by the mean of all",
    "mean_over_columns_frac": "The same of columns",
    "row_outlier": "Size of the largest row over that of the median one",
    "column_outlier": "The same of columns",
}
COLUMNS: tuple[Column, ...] = (
    EXPERIMENT,
    count("step", "Steps of the baseline's training; 0 for a published model.", unit=""),
    text("layer", "Name of the linear layer in the model."),
    text(
        "operand",
        "x: its input, rows are tokens; w: its weight, rows are output features; dy: the gradient "
        "of its output, rows are tokens.",
    ),
    *(
        number(name, f"{meaning}; mean over the first batches.", ColumnKind.SAMPLED, "1")
        for name, meaning in STATISTICS.items()
    ),
)


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row a step, layer and operand of an experiment, in the order of measurement."""
    experiments = inputs.mxfp4.experiments if inputs.mxfp4 else {}
    measured = DiagnosticsExperiment | LayerErrorsExperiment
    return frame(
        [
            {column.name: getattr(operand, column.name) for column in COLUMNS}
            for name, experiment in experiments.items()
            if isinstance(experiment, measured)
            for found in (*inputs.diagnostics, *inputs.layer_errors)
            if found.experiment == name
            for operand in found.operands
        ],
        COLUMNS,
    )
