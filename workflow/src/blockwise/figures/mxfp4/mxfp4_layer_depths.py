"""Figure `mxfp4_layer_depths`: errors of each GEMM by depth, on a published model.

A panel for each GEMM, Wgrad first, and a line for each arm that the experiment compares with
another; marks are medians over the linear layers of one decoder layer.
"""

from collections.abc import Iterator, Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from blockwise.figures import notes, style
from blockwise.figures.grid import Grid, PanelArray, drawn, entry
from blockwise.figures.marks import marks_of
from blockwise.figures.mxfp4.mxfp4_layer_medians import ERROR, FOUR_BIT_NOTE, GEMM_LABELS

TABLE = "mxfp4_layer_depths"
KEPT = (
    "experiment",
    "caption",
    "num_parameters",
    "arm",
    "gemm",
    "depth",
    "num_layers",
    "num_batches",
)
PANEL_HEIGHT_IN = 2.2


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Exactly what is drawn: one row a mark."""
    return marks_of(table, [ERROR], KEPT)


def draw(table: pd.DataFrame) -> Figure:
    """The figure of the table `mxfp4_layer_depths`."""
    return drawn(plotted(table), "no error on a published model was measured", _figure_of)


def _figure_of(marks: pd.DataFrame) -> Figure:
    looks = {arm: style.look_of_rank(rank) for rank, arm in enumerate(marks["arm"].unique())}
    bands = [own for _, own in marks.groupby("experiment", sort=False)]

    def fill(_: Figure, axes: PanelArray) -> None:
        for own, stack in zip(bands, axes, strict=True):
            for ax, (gemm, label) in zip(stack, GEMM_LABELS.items(), strict=True):
                lines = own[own["gemm"] == gemm]
                ax.set_visible(not lines.empty)
                for arm, line in lines.groupby("arm", sort=False):
                    look = looks[str(arm)]
                    places = line["depth"].astype("float64")
                    ax.plot(
                        places,
                        line["value"],
                        color=look.color,
                        marker=look.marker,
                        markersize=style.MARKER_SIZES_PT[0],
                        linestyle=look.linestyle,
                    )
                ax.set_ylim(bottom=0)
                ax.set_title(label.replace("\n", " "))
                ax.set_xlabel("decoder layer")
                ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))

    panels_in = len(bands) * (PANEL_HEIGHT_IN + 4 * style.LINE_HEIGHT_IN)
    grid = Grid(panels_in, _entries(looks), _notes(marks))
    return grid.filled((len(bands), len(GEMM_LABELS)), fill)


def _entries(looks: Mapping[str, style.Look]) -> list[Line2D]:
    return [
        entry(arm, look.color, marker=look.marker, linestyle=look.linestyle)
        for arm, look in looks.items()
    ]


def _notes(marks: pd.DataFrame) -> Iterator[str]:
    yield from notes.training_captions(marks)
    layers = notes.count_words(marks["num_layers"].astype(int))
    batches = notes.count_words(marks["num_batches"].astype(int))
    yield f"Marks: medians over the {layers} linear layers of a decoder layer, {batches} batches."
    yield FOUR_BIT_NOTE
