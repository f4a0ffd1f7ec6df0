"""Figure `mxfp4_layer_medians`: what each arm does to each GEMM of a published model.

A row for each arm, a panel for each GEMM, Wgrad first: no weight enters it, so the 4-bit file that
the weights come from does not show in it. Marks are medians over the linear layers.
"""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from blockwise.figures import notes
from blockwise.figures.marks import Bar, Panel, Scale, Statistic, marks_of
from blockwise.figures.rows import Column, Sheet, draw_rows

TABLE = "mxfp4_layer_medians"
GEMM_LABELS = {
    "W": "Wgrad: relative\nerror of dW",
    "D": "Dgrad: relative\nerror of dX",
    "F": "Fprop: relative\nerror of Y",
}
KEPT = (
    "experiment",
    "caption",
    "num_parameters",
    "arm",
    "gemm",
    "num_layers",
    "num_batches",
)
ERROR = Panel(
    "relative_error",
    "relative error",
    Statistic(
        "relative_error_median",
        num="num_layers",
        low="relative_error_q1",
        high="relative_error_q3",
        bar=Bar.QUARTILES,
    ),
)
FOUR_BIT_NOTE = (
    "Wgrad multiplies no weight. Weights enter Fprop and Dgrad as the model's file holds them: "
    "errors there are those of weights that are already near a grid where the file has few bits."
)


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Exactly what is drawn: one row a mark."""
    return marks_of(table, [ERROR], KEPT)


def draw(table: pd.DataFrame) -> Figure:
    """The figure of the table `mxfp4_layer_medians`."""
    return draw_rows(plotted(table), SHEET)


def _title(own: pd.DataFrame) -> str:
    first = own.iloc[0]
    return f"{first['num_layers']} linear layers, {first['num_batches']} batches"


def _notes(marks: pd.DataFrame) -> Iterator[str]:
    yield from notes.training_captions(marks)
    yield "Marks: medians over layers of the error against the float32 product."
    yield from notes.bars(marks)
    yield FOUR_BIT_NOTE


SHEET = Sheet(
    columns=[Column((gemm,), label, Scale.LOG) for gemm, label in GEMM_LABELS.items()],
    by="gemm",
    nothing="no error on a published model was measured",
    title_of=_title,
    notes_of=_notes,
)
