"""Figure `mxfp4_layer_ratios`: where one arm's error is above another's, against the mean.

A panel for each pair of arms, Wgrad alone: a mark is one linear layer of a published model. To the
right grows the share of the mean over tokens in its input, upwards the ratio of the two errors.
A deterministic rotation adds up the values of a run, and a mean becomes one large value.
"""

from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from blockwise.figures import notes, style
from blockwise.figures.grid import Grid, PanelArray, drawn, entry
from blockwise.figures.marks import Panel, Statistic, marks_of

TABLE = "mxfp4_layer_ratios"
RATIO = Panel("ratio", "ratio of the errors of dW", Statistic("ratio"))
KEPT = (
    "experiment",
    "caption",
    "num_parameters",
    "gemm",
    "arm",
    "other_arm",
    "layer",
    "right_mean_frac",
    "num_layers",
    "num_above_one",
    "median_ratio",
    "right_spearman",
)
PANEL_HEIGHT_IN = 2.2
MAX_COLUMNS = 2


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Exactly what is drawn: one row a mark, of Wgrad alone."""
    marks = marks_of(table[table["gemm"] == "W"], [RATIO], KEPT)
    return marks.assign(kind=marks["layer"].str.rsplit(".", n=1).str[-1].astype("str"))


def draw(table: pd.DataFrame) -> Figure:
    """The figure of the table `mxfp4_layer_ratios`."""
    return drawn(plotted(table), "no error on a published model was measured", _figure_of)


def _figure_of(marks: pd.DataFrame) -> Figure:
    looks = {kind: style.look_of_rank(rank) for rank, kind in enumerate(marks["kind"].unique())}
    pairs = [
        own
        for _, own in marks.groupby(["experiment", "arm", "other_arm"], sort=False, dropna=False)
    ]
    num_columns = min(MAX_COLUMNS, len(pairs))
    num_rows = -(-len(pairs) // num_columns)

    def fill(_: Figure, axes: PanelArray) -> None:
        places: list[Any] = list(axes.flat)
        for ax, own in zip(places, pairs, strict=False):
            _draw_pair(ax, own, looks)
        for ax in places[len(pairs) :]:
            ax.set_visible(False)

    panels_in = num_rows * (PANEL_HEIGHT_IN + 7 * style.LINE_HEIGHT_IN)
    grid = Grid(panels_in, _entries(looks), _notes(marks))
    return grid.filled((num_rows, num_columns), fill)


def _draw_pair(ax: Axes, own: pd.DataFrame, looks: dict[str, style.Look]) -> None:
    first = own.iloc[0]
    ax.axhline(1.0, color="0.4", linewidth=0.7, linestyle="--")
    for kind, layers in own.groupby("kind", sort=False):
        look = looks[str(kind)]
        ax.plot(
            layers["right_mean_frac"].astype("float64"),
            layers["value"],
            color=look.color,
            marker=look.marker,
            markersize=style.MARKER_SIZES_PT[0],
            linestyle="none",
        )
    above = f"above one in {first['num_above_one']} of {first['num_layers']} layers"
    told = f"median {first['median_ratio']:.2f}, {above}"
    if not pd.isna(first["right_spearman"]):
        told += f", rank correlation {first['right_spearman']:.2f}"
    width_in = 0.9 * style.TEXT_WIDTH_IN / MAX_COLUMNS
    names = style.wrapped(f"{first['arm']} over {first['other_arm']}", width_in)
    ax.set_title("\n".join([names, style.wrapped(told, width_in)]))
    ax.set_xlabel("share of the mean over tokens in x")
    ax.set_ylabel("ratio of errors")


def _entries(looks: dict[str, style.Look]) -> list[Line2D]:
    return [
        entry(kind, look.color, marker=look.marker, linestyle="none")
        for kind, look in looks.items()
    ]


def _notes(marks: pd.DataFrame) -> Iterator[str]:
    yield from notes.training_captions(marks)
    yield (
        "Marks: linear layers, relative error of dW of one arm over that of another; layers of one "
        "model are no independent evidence."
    )
    yield "Share of the mean: of the squared values of x, what its mean over tokens makes up."
    yield "Wgrad multiplies no weight, so the file that weights come from does not enter."
