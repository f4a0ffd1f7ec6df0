"""The grid of panels that every figure is: a legend above, panels, notes below.

What stands in the panels is told by a form: `panels` (small multiples), `rows` (arms below each
other), or a figure of its own. The page is as high as its parts need, a figure without a mark
says so, and places are rounded: the same table gives the same bytes.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from blockwise.figures import style
from blockwise.figures.marks import CAPPED

PLACE_DIGITS = 5  # of the figure's width or height: a fiftieth of a pixel of the PNG
HANDLE_IN = 0.45  # line and marker of a legend entry, with the distance to the next
MAX_LEGEND_COLUMNS = 4
CAP_PT = 2.5  # half the width of a bar's cap

PanelArray = np.ndarray[tuple[int, int], np.dtype[np.object_]]
"""Panels by row and column."""


@dataclass(frozen=True)
class Grid:
    """A page around its panels."""

    panels_in: float  # height that is left for panels, with their titles and labels
    entries: Sequence[Line2D]  # what the legend explains
    notes: Iterable[str]  # each is said once
    width_in: float = style.TEXT_WIDTH_IN

    def framed(self) -> tuple[Figure, float]:
        """The page with its legend and notes, and where the panels begin above these, in inches."""
        words = "\n".join(
            style.wrapped(note, 0.97 * self.width_in) for note in dict.fromkeys(self.notes)
        )
        num_columns = self._num_legend_columns()
        line_in = style.LINE_HEIGHT_IN
        legend_in = line_in * (math.ceil(len(self.entries) / num_columns) + 1)
        notes_in = line_in * (words.count("\n") + 1.7)
        height_in = legend_in + self.panels_in + notes_in
        figure = Figure(figsize=(self.width_in, height_in), dpi=style.PNG_DPI)
        figure.text(0.01, 0.5 * line_in / height_in, words, va="bottom", ha="left")
        figure.legend(
            handles=self.entries, loc="upper center", ncols=num_columns, borderaxespad=0.3
        )
        return figure, notes_in

    def filled(
        self,
        shape: tuple[int, int],
        fill: Callable[[Figure, PanelArray], None],
        **options: Any,
    ) -> Figure:
        """The page with panels side by side, laid out once they are filled.

        Args:
            shape: rows and columns of panels.
            fill: draws them.
            options: for `Figure.subplots`.
        """
        figure, bottom_in = self.framed()
        fill(figure, figure.subplots(*shape, squeeze=False, **options))
        self._lay_out(figure, bottom_in)
        return figure

    def _lay_out(self, figure: Figure, bottom_in: float) -> None:
        """Lay the panels out once and for all between legend and notes, at rounded places.

        The solver of the constrained layout finds places whose last digits differ from process to
        process, and with them the bytes of the file.
        """
        height_in = figure.get_figheight()
        within = (0.0, bottom_in / height_in, 1.0, self.panels_in / height_in)
        figure.set_layout_engine(ConstrainedLayoutEngine(rect=within))
        FigureCanvasAgg(figure)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for ax in figure.axes:
            edges = (round(edge, PLACE_DIGITS) for edge in ax.get_position().bounds)
            ax.set_position(Bbox.from_bounds(*edges))

    def _num_legend_columns(self) -> int:
        labels = [str(one.get_label()) for one in self.entries]
        widest_in = HANDLE_IN + max((style.text_width_in(label) for label in labels), default=0.0)
        return max(1, min(MAX_LEGEND_COLUMNS, len(labels), int(self.width_in / widest_in)))


def drawn(marks: pd.DataFrame, nothing: str, form: Callable[[pd.DataFrame], Figure]) -> Figure:
    """The figure of these marks in the one look of all figures.

    Args:
        marks: what is drawn.
        nothing: what the figure says where there is no mark.
        form: draws the marks.
    """
    with style.drawing():
        return empty_figure(nothing) if marks.empty else form(marks)


def empty_figure(words: str) -> Figure:
    """A figure without a mark, which says why."""
    figure = Figure(figsize=(style.COLUMN_WIDTH_IN, 1.0))
    words = style.wrapped(words, 0.9 * style.COLUMN_WIDTH_IN)
    figure.text(0.5, 0.5, words, ha="center", va="center")
    return figure


def say_why_empty(ax: Axes, words: str, width_in: float) -> None:
    """What a panel without a mark says, in lines of at most this width."""
    ax.set_yticks([])
    words = style.wrapped(words, width_in)
    ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center")


def entry(label: str, color: str, **options: Any) -> Line2D:
    """One entry of a legend."""
    return Line2D([], [], label=label, color=color, **options)


def draw_bar(
    ax: Axes, mark: Mapping[Any, Any], at: float, color: str, *, is_level: bool = False
) -> None:
    """The bar of a mark, from low to high, which need not hold it: its value may lie outside.

    Args:
        ax: the panel.
        mark: one row of the marks.
        at: where the bar stands on the axis that is not its own.
        color: of the bar.
        is_level: it lies along x, not along y.
    """
    middle, half = bar_of(mark["low"], mark["high"], mark["value"])
    options: dict[str, Any] = {"color": color, "linestyle": "none", "elinewidth": 0.8}
    options["capsize"] = CAP_PT if mark["bar"] in CAPPED else 0.0
    if is_level:
        ax.errorbar(middle, at, xerr=half, **options)
    else:
        ax.errorbar(at, middle, yerr=half, **options)


def bar_of(low: Any, high: Any, value: Any) -> tuple[float, float]:
    """Middle and half length of a bar; an open end is at the mark."""
    ends = [float(value if pd.isna(end) else end) for end in (low, high)]
    return (ends[0] + ends[1]) / 2, abs(ends[1] - ends[0]) / 2
