"""Small multiples: the form of the figures of the compaction study.

A column of panels for each backbone and dataset, a panel for each measure. Marks are joined along
an arm, told apart by colour, marker and line, and have a bar where the table gives an interval or a
range. A panel without a mark says why. The sheet is as wide as one column of a page where that is
enough, else as wide as both.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from blockwise.config.arms import SEQUENTIAL
from blockwise.figures import notes, style
from blockwise.figures.axes import Amounts, XAxis, known, thousands, value_ticks
from blockwise.figures.grid import Grid, PanelArray, draw_bar, drawn, entry, say_why_empty
from blockwise.figures.marks import Panel, Scale

COLUMNS_A_BAND = 4  # more would leave a panel narrower than its tick labels
PANEL_HEIGHT_IN = 0.95  # four rows, a title and the notes fit a page beside its text
TALL_PANEL_HEIGHT_IN = 1.6  # where there are one or two rows
Y_LABELS_IN = 0.4  # tick labels of a panel and the distance to the next
Y_NAME_IN = 0.3  # names of the measures, left of the first panel
ENDS = ("value", "low", "high", "beyond")  # what an axis has to hold


@dataclass(frozen=True)
class Fill:
    """A category told apart by hollow and filled marks."""

    column: str
    hollow: str  # the value that is drawn hollow
    words: Mapping[str, str]  # what the legend calls each value


@dataclass(frozen=True)
class Sheet:
    """How the marks of a figure are laid out."""

    panels: Sequence[Panel]
    axis: XAxis
    nothing: str  # what a figure without a mark says
    num_words: Callable[[pd.DataFrame], str]  # n of a column of panels
    notes_of: Callable[[pd.DataFrame], Iterable[str]]
    facts: Mapping[str, str] = field(default_factory=dict)  # said in titles where they vary
    variants: tuple[str, ...] = ()  # what tells marks apart beside arm and block size
    fill: Fill | None = None
    has_base: bool = False  # the level of sequential is drawn through its panel
    arm_words: str = "parallel, {}"  # what the legend calls arms beside sequential

    @property
    def group(self) -> list[str]:
        """Columns of the marks that make one column of panels."""
        return ["backbone", "dataset", *self.facts]

    @property
    def lanes(self) -> tuple[str, ...]:
        """What keeps marks apart beside their arm."""
        return (*self.variants, *([self.fill.column] if self.fill else []))

    @property
    def panel_height_in(self) -> float:
        """Height of one panel with its share of the distances."""
        return PANEL_HEIGHT_IN if len(self.panels) > 2 else TALL_PANEL_HEIGHT_IN


@dataclass(frozen=True)
class _Page:
    """Sizes of a figure, in inches."""

    width_in: float
    num_columns: int
    num_bands: int
    block_sizes_tokens: tuple[int, ...]  # of all marks, ascending

    @property
    def panel_in(self) -> float:
        """Width of one panel without its labels."""
        return (self.width_in - Y_NAME_IN) / self.num_columns - Y_LABELS_IN


def draw_sheet(marks: pd.DataFrame, sheet: Sheet) -> Figure:
    """The figure of these marks; says so where there is none."""
    return drawn(marks, sheet.nothing, lambda some: _figure_of(some, sheet))


def _figure_of(marks: pd.DataFrame, sheet: Sheet) -> Figure:
    groups = [group for _, group in marks.groupby(sheet.group, sort=False, dropna=False)]
    page = _page_for(marks, groups, sheet)
    titles = [_title(group, marks, sheet, page.panel_in) for group in groups]
    line_in = style.LINE_HEIGHT_IN
    title_in = line_in * (max(title.count("\n") for title in titles) + 2)
    num_lines = max(sheet.axis.num_label_lines(group, page.panel_in) for group in groups)
    band_in = len(sheet.panels) * sheet.panel_height_in + title_in + (num_lines + 2) * line_in

    def fill(figure: Figure, axes: PanelArray) -> None:
        _draw_groups(figure, axes, list(zip(titles, groups, strict=True)), sheet, page)

    entries, told = _legend_entries(marks, sheet), sheet.notes_of(marks)
    grid = Grid(page.num_bands * band_in, entries, told, page.width_in)
    return grid.filled((len(sheet.panels) * page.num_bands, page.num_columns), fill)


def _page_for(marks: pd.DataFrame, groups: Sequence[pd.DataFrame], sheet: Sheet) -> _Page:
    """One column of a page where all groups fit beside each other, else both."""
    needed_in = max(sheet.axis.width_in(group) for group in groups) + Y_LABELS_IN
    num_columns = 1
    for width_in in (style.COLUMN_WIDTH_IN, style.TEXT_WIDTH_IN):
        fitting = int((width_in - Y_NAME_IN) / needed_in)
        num_columns = max(1, min(fitting, COLUMNS_A_BAND, len(groups)))
        if min(fitting, COLUMNS_A_BAND) >= len(groups):
            break
    num_bands = math.ceil(len(groups) / num_columns)
    return _Page(width_in, num_columns, num_bands, tuple(notes.sizes(marks)))


def _draw_groups(
    figure: Figure,
    axes: PanelArray,
    titled: Sequence[tuple[str, pd.DataFrame]],
    sheet: Sheet,
    page: _Page,
) -> None:
    num_rows = len(sheet.panels)
    for place in range(page.num_bands * page.num_columns):
        band, column = divmod(place, page.num_columns)
        stack = list(axes[band * num_rows : (band + 1) * num_rows, column])
        if place >= len(titled):
            for ax in stack:
                ax.set_visible(False)
            continue
        title, group = titled[place]
        group = group.assign(place=sheet.axis.places(group, sheet.lanes))
        stack[0].set_title(title)
        stack[-1].set_xlabel(style.wrapped(sheet.axis.label_of(group), page.panel_in))
        for ax, panel in zip(stack, sheet.panels, strict=True):
            sheet.axis.dress(ax, group, page.panel_in, labelled=ax is stack[-1])
            _draw_panel(ax, group, panel, sheet, page)
            if column == 0:
                ax.set_ylabel(panel.label)
        if column == 0:
            figure.align_ylabels(stack)


def _draw_panel(
    ax: Axes,
    group: pd.DataFrame,
    panel: Panel,
    sheet: Sheet,
    page: _Page,
) -> None:
    rows = group[group["measure"] == panel.measure]
    seen = rows.dropna(subset=["value"])
    is_level = seen["level"].notna()
    if is_level.all():
        say_why_empty(ax, _why_empty(rows, sheet), 0.95 * page.panel_in)
        return
    _draw_levels(ax, seen[is_level], group, sheet.axis)
    if panel.scale is Scale.RATIO:
        _draw_base(ax, 1.0, None)
    elif panel.scale is Scale.DIFFERENCE:
        ax.axhline(0.0, color="0.4", linewidth=0.6)
    elif sheet.has_base:
        for _, mark in seen[~is_level & (seen["arm"] == SEQUENTIAL)].iterrows():
            _draw_base(ax, mark["value"], _span(sheet.axis, group, mark))
    columns = list(dict.fromkeys([*sheet.axis.line_columns, *sheet.lanes]))
    for _, own in seen[~is_level].groupby(columns, sort=False, dropna=False):
        _draw_line(ax, own, sheet, page.block_sizes_tokens)
    _scale(ax, seen, panel)


def _span(axis: XAxis, group: pd.DataFrame, mark: pd.Series) -> tuple[float, float] | None:
    """From where to where a level runs; None: through the panel."""
    return None if isinstance(axis, Amounts) else axis.span(group, mark)


def _draw_base(ax: Axes, height: float, span: tuple[float, float] | None) -> None:
    """The level of sequential."""
    look = style.look_of_arm(SEQUENTIAL)
    _draw_level(ax, height, span, color=look.color, linestyle=look.linestyle, linewidth=0.7)


def _draw_levels(ax: Axes, levels: pd.DataFrame, group: pd.DataFrame, axis: XAxis) -> None:
    """Lines that marks are held against: level ones, or sloped ones through two points."""
    columns = ["level", "arm", "block_size_tokens", *([axis.outer] if axis.outer else [])]
    for _, own in levels.groupby(columns, sort=False, dropna=False):
        first = own.iloc[0]
        look = style.look_of_level(first["level"])
        options: dict[str, Any] = {
            "color": look.color,
            "linestyle": look.linestyle,
            "linewidth": 0.9,
        }
        if len(own) > 1:
            ax.plot(own["place"], own["value"], **options)
        else:
            _draw_level(ax, first["value"], _span(axis, group, first), **options)


def _draw_level(ax: Axes, height: float, span: tuple[float, float] | None, **options: Any) -> None:
    if span is None:
        ax.axhline(height, **options)
    else:
        ax.plot(span, (height, height), scalex=False, **options)


def _draw_line(ax: Axes, own: pd.DataFrame, sheet: Sheet, sizes: Sequence[int]) -> None:
    """Marks of one arm with their bars, and the line that joins them."""
    own = own.sort_values("place")
    first = own.iloc[0]
    look = style.look_of_arm(first["arm"])
    is_hollow = sheet.fill is not None and first[sheet.fill.column] == sheet.fill.hollow
    ax.plot(own["place"], own["value"], color=look.color, linestyle=look.linestyle)
    ax.plot(own["place"], own["beyond"], color=look.color, linestyle="none", marker="_")
    for mark in own.to_dict("records"):
        _draw_bars(ax, mark, sheet.axis, look.color)
        size = known(mark["block_size_tokens"])
        is_sized = sheet.axis.sized and size is not None
        ax.plot(
            [mark["place"]],
            [mark["value"]],
            color=look.color,
            marker=look.marker,
            markersize=style.marker_size_pt(sizes.index(size), len(sizes)) if is_sized else None,
            markerfacecolor="white" if is_hollow else look.color,
            clip_on=False,  # a mark at zero lies on the frame
        )


def _draw_bars(ax: Axes, mark: Mapping[Any, Any], axis: XAxis, color: str) -> None:
    """The bar of a mark, and the one along a number line where its amount has a range."""
    draw_bar(ax, mark, mark["place"], color)
    if isinstance(axis, Amounts) and axis.x_low and axis.x_high:
        ends = {"low": mark[axis.x_low], "high": mark[axis.x_high], "bar": None}
        draw_bar(ax, {"value": mark[axis.x], **ends}, mark["value"], color, is_level=True)


def _scale(ax: Axes, seen: pd.DataFrame, panel: Panel) -> None:
    """Amounts start at zero, ratios lie around one; no mark or bar touches the frame."""
    ends = [float(end) for name in ENDS for end in seen[name].dropna()]
    if panel.scale in (Scale.LOG, Scale.LOG2):
        above = [end for end in ends if end > 0]
        if above:
            value_ticks(ax, min(above), max(above), 2 if panel.scale is Scale.LOG2 else 10)
        return
    if panel.scale in (Scale.RATIO, Scale.DIFFERENCE):
        ends.append(1.0 if panel.scale is Scale.RATIO else 0.0)
        air = 0.15 * (max(ends) - min(ends)) or 0.1
        ax.set_ylim(min(ends) - air, max(ends) + air)
    else:
        ax.set_ylim(0, 1.12 * max(ends) or 1.0)
    ax.yaxis.set_major_locator(MaxNLocator(4, integer=panel.scale is Scale.COUNT))
    if panel.scale is Scale.TOKENS:
        ax.yaxis.set_major_formatter(FuncFormatter(thousands))


def _why_empty(rows: pd.DataFrame, sheet: Sheet) -> str:
    """Why a panel has no mark, of an arm beside sequential where there is one."""
    rows = rows.sort_values("arm", key=lambda arms: arms == SEQUENTIAL, kind="stable")
    reasons = rows["omitted_reason"].dropna()
    return str(reasons.iloc[0]) if len(reasons) else sheet.nothing


def _title(group: pd.DataFrame, marks: pd.DataFrame, sheet: Sheet, width_in: float) -> str:
    first = group.iloc[0]
    lines = [str(first["backbone"]), str(first["dataset"])]
    for name, words in sheet.facts.items():
        is_told = name == sheet.axis.label_column
        if marks[name].nunique(dropna=False) > 1 and not is_told and not pd.isna(first[name]):
            lines.append(words.format(first[name]))
    lines.append(sheet.num_words(group))
    return "\n".join(style.wrapped(line, width_in) for line in lines)


def _legend_entries(marks: pd.DataFrame, sheet: Sheet) -> list[Line2D]:
    """Arms first, then what else tells marks apart, then levels."""
    drawn = marks[marks["level"].isna()]
    arms = sorted(drawn["arm"].unique(), key=lambda arm: (arm != SEQUENTIAL, arm))
    entries = []
    for arm in arms:
        look = style.look_of_arm(arm)
        label = arm if arm == SEQUENTIAL else sheet.arm_words.format(arm)
        entries.append(entry(label, look.color, marker=look.marker, linestyle=look.linestyle))
    sizes = notes.sizes(drawn)
    if sheet.axis.sized and len(sizes) > 1:
        for rank, words in enumerate(sizes.values()):
            size_pt = style.marker_size_pt(rank, len(sizes))
            label = f"size: B = {words} tokens"
            entries.append(entry(label, "0.5", marker="o", linestyle="none", markersize=size_pt))
    if sheet.fill is not None:
        for value, words in sheet.fill.words.items():
            face = "white" if value == sheet.fill.hollow else "0.5"
            entries.append(entry(words, "0.5", marker="o", linestyle="none", markerfacecolor=face))
    for level in marks["level"].dropna().unique():
        look = style.look_of_level(level)
        entries.append(entry(level, look.color, linestyle=look.linestyle))
    return entries
