"""Rows: arms below each other, their measures beside each other.

The form of most figures of the MXFP4 study. An arm's name says which GEMMs it quantizes and
where each remedy acts, so names are long: they stand once, at the left, and every panel to their
right has the same rows. Marks that share a row and a panel stand below each other, told apart by
colour and marker; what must be said of a mark in words stands above it. A shade behind a mark is
a value that others report. Places are in inches from the top of a panel: a page grows with its
arms and never squeezes them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from blockwise.figures import style
from blockwise.figures.axes import known
from blockwise.figures.grid import Grid, draw_bar, drawn, entry
from blockwise.figures.marks import Bar, Scale
from blockwise.figures.scales import Words, plain, set_scale, set_ticks

ROW_AIR_IN = 0.1  # between two rows
MARK_IN = 0.12  # height of a mark with the distance to the next
GUTTER_IN = 0.2  # between panels; tick labels may reach into it
LABEL_IN = 1.8  # longest line of a name: F+D+W+SR(D:dy,W:dy)+RHT16(W)
MARGIN_IN = 0.12  # right of the last panel
NAME_AIR_IN = 0.08  # between a name and its panel
AXIS_IN = 0.22  # ticks and their labels, with the distance to the name of the axis
STRIPE = "0.96"
ENDS = ("value", "low", "high")  # what an axis has to hold


Mark = Mapping[Any, Any]
"""One row of the marks."""


@dataclass(frozen=True)
class Column:
    """One panel of every band: which marks it holds, and its axis."""

    keys: tuple[str, ...]  # marks of all but the first are hollow
    label: str
    scale: Scale = Scale.AMOUNT
    line: float | None = None  # a level that marks are held against
    tick_words: Words = plain


@dataclass(frozen=True)
class Sheet:
    """How the marks of a figure are laid out."""

    columns: Sequence[Column]
    by: str  # column of the marks that says in which panel each belongs
    nothing: str  # what a figure without a mark says
    title_of: Callable[[pd.DataFrame], str]  # what is special to a band
    notes_of: Callable[[pd.DataFrame], Iterable[str]]
    row: str = "arm"
    section: str | None = None  # column whose values stand above their rows
    lane: str | None = None  # column that tells apart the marks of a row
    lane_words: Mapping[Any, str] = field(default_factory=dict)  # for the legend, in order
    hollow_words: tuple[str, str] | None = None  # what filled and hollow marks are
    words_of: Callable[[Mark], Iterable[str]] | None = None  # said above the first mark of a lane
    is_shared: bool = False  # all panels show one quantity, on one axis
    band: tuple[str, ...] = ("experiment",)


@dataclass(frozen=True)
class _Cell:
    """What stands in one panel in one lane of a row; places in inches from the top."""

    column: Column
    marks: Sequence[Mark]
    words: str
    words_top_in: float
    mark_in: float
    is_striped: bool


@dataclass(frozen=True)
class _Band:
    """The rows of one group of marks."""

    title: str
    names: list[tuple[float, str, bool]]  # where, what, and whether it is a section
    stripes: list[tuple[float, float]]  # every second row, from top to bottom
    cells: list[_Cell]
    height_in: float


def draw_rows(marks: pd.DataFrame, sheet: Sheet) -> Figure:
    """The figure of these marks; says so where there is none."""
    return drawn(marks, sheet.nothing, lambda some: _figure_of(some, sheet))


def _figure_of(marks: pd.DataFrame, sheet: Sheet) -> Figure:
    label_in = _label_in(marks, sheet)
    room_in = style.TEXT_WIDTH_IN - label_in - NAME_AIR_IN - MARGIN_IN
    panel_in = (room_in + GUTTER_IN) / len(sheet.columns) - GUTTER_IN
    bands = [
        _band_of(own, marks, sheet, panel_in)
        for _, own in marks.groupby(list(sheet.band), sort=False, dropna=False)
    ]
    name_lines = 1 + max(column.label.count("\n") for column in sheet.columns)
    below_in = AXIS_IN + (name_lines + 0.5) * style.LINE_HEIGHT_IN
    panels_in = sum(_title_in(band) + band.height_in + below_in for band in bands)
    grid = Grid(panels_in, _legend_entries(marks, sheet), sheet.notes_of(marks))
    figure, bottom_in = grid.framed()
    top_in = bottom_in + panels_in
    for band in bands:
        top_in -= _title_in(band)
        _draw_title(figure, band.title, top_in)
        _draw_band(figure, band, sheet, (label_in + NAME_AIR_IN, top_in, panel_in))
        top_in -= band.height_in + below_in
    return figure


def _label_in(marks: pd.DataFrame, sheet: Sheet) -> float:
    """Width of the names at the left."""
    widths = [
        style.text_width_in(line, is_bold=column == sheet.section)
        for column in (sheet.section, sheet.row)
        if column
        for name in marks[column].unique()
        for line in style.wrapped_arm(str(name), LABEL_IN).split("\n")
    ]
    return max(widths) + NAME_AIR_IN


def _title_in(band: _Band) -> float:
    return style.LINE_HEIGHT_IN * (band.title.count("\n") + 1.6)


def _draw_title(figure: Figure, title: str, bottom_in: float) -> None:
    width_in, height_in = figure.get_size_inches()
    place = (0.06 / width_in, (bottom_in + 0.05) / height_in)
    figure.text(*place, title, ha="left", va="bottom")


def _band_of(own: pd.DataFrame, marks: pd.DataFrame, sheet: Sheet, panel_in: float) -> _Band:
    names: list[tuple[float, str, bool]] = []
    stripes: list[tuple[float, float]] = []
    cells: list[_Cell] = []
    top_in = 0.0
    last_section = None
    for number, ((section, name), row) in enumerate(_rows(own, sheet)):
        if sheet.section and section != last_section:
            last_section = section
            heading = style.wrapped_arm(str(section), LABEL_IN)
            heading_in = (heading.count("\n") + 1) * style.LINE_HEIGHT_IN + ROW_AIR_IN / 2
            names.append((top_in + heading_in / 2, heading, True))
            top_in += heading_in
        lines = style.wrapped_arm(str(name), LABEL_IN)
        start_in = top_in + ROW_AIR_IN / 2
        row_cells, height_in = _cells_of(row, sheet, start_in, panel_in, is_striped=number % 2 > 0)
        cells += row_cells
        name_in = (lines.count("\n") + 1) * style.LINE_HEIGHT_IN
        bottom_in = top_in + max(height_in, name_in) + ROW_AIR_IN
        names.append(((top_in + bottom_in) / 2, lines, False))
        if number % 2:
            stripes.append((top_in, bottom_in))
        top_in = bottom_in
    title = "\n".join(
        style.wrapped(line, 0.95 * style.TEXT_WIDTH_IN)
        for line in (*_experiment(own, marks), sheet.title_of(own))
    )
    return _Band(title, names, stripes, cells, top_in)


def _experiment(own: pd.DataFrame, marks: pd.DataFrame) -> Iterator[str]:
    """The name of a band's experiment, where there are several."""
    if marks["experiment"].nunique() > 1:
        yield str(own["experiment"].iloc[0])


def _rows(own: pd.DataFrame, sheet: Sheet) -> Iterator[tuple[tuple[Any, Any], list[Mark]]]:
    """Section, name and marks of each row, in the order of the marks."""
    sections: dict[Any, dict[Any, list[Mark]]] = {}
    for mark in own.to_dict("records"):
        rows = sections.setdefault(mark[sheet.section] if sheet.section else None, {})
        rows.setdefault(mark[sheet.row], []).append(mark)
    for section, rows in sections.items():
        for name, row in rows.items():
            yield (section, name), row


def _cells_of(
    row: Sequence[Mark], sheet: Sheet, top_in: float, panel_in: float, *, is_striped: bool
) -> tuple[list[_Cell], float]:
    """The cells of a row, lane below lane, and their height."""
    cells: list[_Cell] = []
    bottom_in = top_in
    for marks in _lanes(row, sheet):
        drawn = [
            [mark for mark in marks if mark[sheet.by] in column.keys] for column in sheet.columns
        ]
        words = [_words(own, sheet, panel_in) for own in drawn]
        num_lines = max(len(text.splitlines()) for text in words)
        mark_in = bottom_in + num_lines * style.LINE_HEIGHT_IN + MARK_IN / 2
        cells += [
            _Cell(column, own, text, bottom_in, mark_in, is_striped)
            for column, own, text in zip(sheet.columns, drawn, words, strict=True)
        ]
        bottom_in = mark_in + MARK_IN / 2
    return cells, bottom_in - top_in


def _lanes(row: Sequence[Mark], sheet: Sheet) -> list[list[Mark]]:
    """The marks of a row by kind."""
    if sheet.lane is None:
        return [list(row)]
    lanes = ([mark for mark in row if mark[sheet.lane] == lane] for lane in sheet.lane_words)
    return [lane for lane in lanes if lane]


def _words(marks: Sequence[Mark], sheet: Sheet, panel_in: float) -> str:
    """What is said above the marks of a lane in one panel."""
    if sheet.words_of is None or not marks:
        return ""
    return "\n".join(style.wrapped(line, panel_in) for line in sheet.words_of(marks[0]))


def _draw_band(
    figure: Figure, band: _Band, sheet: Sheet, place_in: tuple[float, float, float]
) -> None:
    """The panels of a band.

    Args:
        figure: where they are drawn.
        band: what they show.
        sheet: how.
        place_in: left edge of the first panel, top edge and width of all.
    """
    left_in, top_in, panel_in = place_in
    width_in, height_in = figure.get_size_inches()
    for number, column in enumerate(sheet.columns):
        ax = figure.add_axes(
            (
                (left_in + number * (panel_in + GUTTER_IN)) / width_in,
                (top_in - band.height_in) / height_in,
                panel_in / width_in,
                band.height_in / height_in,
            )
        )
        ax.set_ylim(band.height_in, 0)
        for stripe in band.stripes:
            ax.axhspan(*stripe, color=STRIPE, linewidth=0, zorder=0)
        _dress(ax, band, sheet, column, panel_in)
        for cell in band.cells:
            if cell.column is column:
                _draw_cell(ax, cell, sheet)
        _draw_names(ax, band.names if number == 0 else [])


def _dress(ax: Axes, band: _Band, sheet: Sheet, column: Column, panel_in: float) -> None:
    """Scale, ticks and name of one panel, and the line that marks are held against."""
    ax.grid(visible=False)
    ax.grid(visible=True, axis="x")
    held = [column.line] if column.line is not None else []
    cells = [cell for cell in band.cells if sheet.is_shared or cell.column is column]
    marks = [mark for cell in cells for mark in cell.marks]
    ends = [float(mark[name]) for mark in marks for name in ENDS if known(mark[name]) is not None]
    set_scale(ax, [*held, *ends], column.scale)
    if ends:
        set_ticks(ax, column.scale, column.tick_words, panel_in)
    else:
        ax.set_xticks([])
        ax.set_xticks([], minor=True)  # a logarithmic axis without a mark has some too
    if column.scale in (Scale.DIFFERENCE, Scale.SIGNED_LOG):
        held.append(0.0)
    for line in held:
        ax.axvline(line, color="0.4", linewidth=0.7, linestyle="--" if line else "-", zorder=1)
    ax.set_xlabel(column.label, va="top")
    ax.xaxis.set_label_coords(0.5, -AXIS_IN / band.height_in)


def _draw_names(ax: Axes, names: Sequence[tuple[float, str, bool]]) -> None:
    """What the rows are, left of the first panel."""
    ax.set_yticks([where for where, _, _ in names], [name for _, name, _ in names])
    ax.tick_params(axis="y", length=0, pad=72 * NAME_AIR_IN)
    for label, (_, _, is_section) in zip(ax.get_yticklabels(), names, strict=True):
        label.set_fontweight("bold" if is_section else "normal")


def _draw_cell(ax: Axes, cell: _Cell, sheet: Sheet) -> None:
    """The marks of one lane in one panel, and what is said of them."""
    if cell.words:
        ax.text(
            0.02,
            cell.words_top_in,
            cell.words,
            transform=ax.get_yaxis_transform(),
            ha="left",
            va="top",
            linespacing=1.1,
            bbox={"facecolor": STRIPE if cell.is_striped else "white", "linewidth": 0, "pad": 0.4},
        )
    for mark in cell.marks:
        if known(mark["value"]) is None:
            continue
        if known(mark["level"]) is None:
            is_hollow = mark[sheet.by] != cell.column.keys[0]
            _draw_mark(ax, mark, cell.mark_in, _look(mark, sheet), is_hollow=is_hollow)
        else:
            _draw_reported(ax, mark, cell.mark_in)


def _look(mark: Mark, sheet: Sheet) -> style.Look:
    rank = list(sheet.lane_words).index(mark[sheet.lane]) if sheet.lane else 0
    return style.look_of_rank(rank)


def _draw_mark(ax: Axes, mark: Mark, height: float, look: style.Look, *, is_hollow: bool) -> None:
    """A mark with its bar; a lower bound is an open triangle with a line to the right."""
    draw_bar(ax, mark, height, look.color, is_level=True)
    is_bound = mark["bar"] == Bar.AT_LEAST
    if is_bound:
        ends = (mark["value"], ax.get_xlim()[1])
        ax.plot(ends, (height, height), color=look.color, linestyle=":")
    ax.plot(
        [mark["value"]],
        [height],
        color=look.color,
        marker=">" if is_bound else look.marker,
        markerfacecolor="white" if is_hollow or is_bound else look.color,
        clip_on=False,  # a mark at zero lies on the frame
    )


def _draw_reported(ax: Axes, mark: Mark, height: float) -> None:
    """A shade behind a mark, from low to high: what others report."""
    ax.barh(
        height,
        mark["high"] - mark["low"],
        left=mark["low"],
        height=MARK_IN,
        color=style.REPORTED_COLOR,
        edgecolor="0.4",
        linewidth=0.4,
        zorder=1,
    )


def _legend_entries(marks: pd.DataFrame, sheet: Sheet) -> list[Line2D]:
    """Lanes first, then filled and hollow, then what others report."""
    entries = []
    found = set(marks[sheet.lane]) if sheet.lane else set()
    for rank, (lane, words) in enumerate(sheet.lane_words.items()):
        if lane in found:
            look = style.look_of_rank(rank)
            entries.append(entry(words, look.color, marker=look.marker, linestyle="none"))
    for face, words in zip(("0.5", "white"), sheet.hollow_words or (), strict=False):
        entries.append(entry(words, "0.5", marker="o", linestyle="none", markerfacecolor=face))
    for level in marks["level"].dropna().unique():
        entries.append(entry(level, style.REPORTED_COLOR, linewidth=5.0))
    return entries
