"""Figure `compaction_end_to_end`: what parallel compaction costs and gains by block size.

The paper's Tables 7 and 8 as a picture. One column of panels a backbone and dataset; from
top to bottom the wall time of a session, its speed-up against sequential, the first-token
latency after a compaction, and the total tokens spent. From left to right sequential, then
ever smaller history blocks: more workers at once. Marks are means over timing blocks, bars
their interval, or their range where six clusters are not at hand. Values that the paper
reports are not drawn: they belong to other models on other machines.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from blockwise.config.experiments import SEQUENTIAL
from blockwise.figures import style

TABLE = "compaction_end_to_end"
COLUMNS_A_BAND = 4  # more would leave a panel narrower than its tick labels
PANEL_HEIGHT_IN = 0.95  # four rows, a title and the notes fit a page beside its text
DODGE = 0.14  # distance of layouts at one block size, in units of their spacing
INTERVAL, RANGE = "95% interval", "minimum to maximum"


@dataclass(frozen=True)
class Panel:
    """One row of panels: a measure of the table."""

    measure: str
    suffix: str  # what follows the statistic in the table's column names
    label: str


PANELS = (
    Panel("wall", "_s", "wall time\nof a session (s)"),
    Panel("speedup", "", "speed-up over\nsequential (×)"),
    Panel("ttft_after_compaction", "_s", "first token after\ncompaction (s)"),
    Panel("total", "_tokens", "total tokens\nspent"),
)
GROUP = ["experiment", "backbone", "dataset"]
FACTS = [
    "caption",
    "arm",
    "block_size_tokens",
    "tau_tokens",
    "volume_mode",
    "volume_tokens",
    "num_timing_blocks",
    "num_invalid_cells",
    "num_unequal_volume_timing_blocks",
    "speedup_omitted_reason",
]


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Exactly what is drawn: one row a mark, with its bar and what the bar means."""
    rows = [_mark(row, panel) for row in table.to_dict("records") for panel in PANELS]
    names = [*GROUP, *FACTS, "measure", "value", "low", "high", "bar", "num_clusters"]
    marks = pd.DataFrame(rows, columns=names)
    for name in ("block_size_tokens", "tau_tokens", "volume_tokens"):
        marks[name] = marks[name].astype("Int64")
    return marks


def _mark(row: dict[Any, Any], panel: Panel) -> dict[str, Any]:
    value, low, high, minimum, maximum = (
        row[f"{panel.measure}_{statistic}{panel.suffix}"]
        for statistic in ("mean", "low", "high", "min", "max")
    )
    has_interval = not pd.isna(low)
    bar = None if pd.isna(value) else INTERVAL if has_interval else RANGE
    return {
        **{name: row[name] for name in (*GROUP, *FACTS)},
        "measure": panel.measure,
        "value": value,
        "low": low if has_interval else minimum,
        "high": high if has_interval else maximum,
        "bar": bar,
        "num_clusters": row[f"{panel.measure}_num_clusters"],
    }


def draw(table: pd.DataFrame) -> Figure:
    """The figure of the table `compaction_end_to_end`; says so where nothing can be drawn."""
    marks = plotted(table)
    with style.drawing():
        groups = [group for _, group in marks.groupby(GROUP, sort=False)]
        if not groups:
            return _empty_figure()
        return _figure_of(marks, groups)


def _empty_figure() -> Figure:
    figure = Figure(figsize=(style.COLUMN_WIDTH_IN, 1.0))
    figure.text(0.5, 0.5, "no valid timing block", ha="center", va="center")
    return figure


def _figure_of(marks: pd.DataFrame, groups: Sequence[pd.DataFrame]) -> Figure:
    num_columns = min(len(groups), COLUMNS_A_BAND)
    num_bands = math.ceil(len(groups) / num_columns)
    width_in = style.COLUMN_WIDTH_IN if num_columns <= 2 else style.TEXT_WIDTH_IN
    several = marks["experiment"].nunique() > 1
    titles = [_title(group, 0.8 * width_in / num_columns, several) for group in groups]
    notes = "\n".join(style.wrapped(note, 0.97 * width_in) for note in _notes(marks))
    arms = _arms(marks)
    legend_columns = 2 if width_in == style.COLUMN_WIDTH_IN else 4

    legend_in = style.LINE_HEIGHT_IN * (math.ceil(len(arms) / legend_columns) + 1)
    notes_in = style.LINE_HEIGHT_IN * (notes.count("\n") + 2)
    title_in = style.LINE_HEIGHT_IN * (max(title.count("\n") for title in titles) + 2)
    band_in = len(PANELS) * PANEL_HEIGHT_IN + title_in + 3 * style.LINE_HEIGHT_IN  # ticks, label
    height_in = legend_in + num_bands * band_in + notes_in

    figure = Figure(figsize=(width_in, height_in))
    panels_frac = 1 - (legend_in + notes_in) / height_in
    figure.set_layout_engine(
        ConstrainedLayoutEngine(rect=(0.0, notes_in / height_in, 1.0, panels_frac))
    )
    axes = figure.subplots(len(PANELS) * num_bands, num_columns, squeeze=False)
    for place in range(num_bands * num_columns):
        band, column = divmod(place, num_columns)
        stack = list(axes[band * len(PANELS) : (band + 1) * len(PANELS), column])
        if place < len(groups):
            _draw_group(stack, groups[place], titles[place], labelled=column == 0)
        else:
            for ax in stack:
                ax.set_visible(False)
    figure.align_ylabels()
    figure.text(0.01, 0.5 * style.LINE_HEIGHT_IN / height_in, notes, va="bottom", ha="left")
    figure.legend(
        handles=[_legend_entry(arm) for arm in arms],
        loc="upper center",
        ncols=legend_columns,
        borderaxespad=0.3,
    )
    return figure


def _draw_group(stack: Sequence[Axes], group: pd.DataFrame, title: str, *, labelled: bool) -> None:
    """One backbone and dataset: a panel a measure, over the same block sizes."""
    sizes = sorted(group["block_size_tokens"].dropna().unique(), reverse=True)
    has_sequential = bool((group["arm"] == SEQUENTIAL).any())
    names = [*(["seq."] if has_sequential else []), *_size_labels(sizes)]
    positions = {int(size): place + has_sequential for place, size in enumerate(sizes)}
    for row, (ax, panel) in enumerate(zip(stack, PANELS, strict=True)):
        marks = group[group["measure"] == panel.measure]
        ax.set_xlim(-0.5, len(names) - 0.5)
        ax.set_xticks(range(len(names)), names if row == len(PANELS) - 1 else [])
        if marks["value"].notna().any():
            _draw_panel(ax, marks, positions)
            _scale(ax, marks, panel)
        else:
            _say_why_empty(ax, marks, panel)
        if labelled:
            ax.set_ylabel(panel.label)
    stack[0].set_title(title)
    stack[-1].set_xlabel("block size B (tokens)")


def _draw_panel(ax: Axes, marks: pd.DataFrame, positions: dict[int, int]) -> None:
    """Marks with bars, a line along each layout, and the level of sequential."""
    known = marks.dropna(subset=["value"])
    sequential = style.look_of_arm(SEQUENTIAL)
    level = known.loc[known["arm"] == SEQUENTIAL, "value"]
    is_speedup = bool((known["measure"] == "speedup").all())
    if is_speedup or len(level):
        height = 1.0 if is_speedup else float(level.iloc[0])
        ax.axhline(height, color=sequential.color, linestyle=sequential.linestyle, linewidth=0.7)
    arms = _arms(known)
    layouts = [arm for arm in arms if arm != SEQUENTIAL]
    for arm in arms:
        own = known[known["arm"] == arm].sort_values("block_size_tokens", ascending=False)
        shift = 0.0
        if arm in layouts:
            shift = DODGE * (layouts.index(arm) - (len(layouts) - 1) / 2)
        places = [
            shift + (0 if pd.isna(size) else positions[int(size)])
            for size in own["block_size_tokens"]
        ]
        _draw_arm(ax, arm, own, places)


def _scale(ax: Axes, marks: pd.DataFrame, panel: Panel) -> None:
    """Amounts start at zero, ratios lie around one; no mark or bar touches the frame."""
    ends = [*marks["low"].dropna(), *marks["high"].dropna()]
    if panel.measure == "speedup":
        ends.append(1.0)
        air = 0.15 * (max(ends) - min(ends)) or 0.1
        ax.set_ylim(min(ends) - air, max(ends) + air)
    else:
        ax.set_ylim(0, 1.12 * max(ends) or 1.0)
    ax.yaxis.set_major_locator(MaxNLocator(4))
    if panel.suffix == "_tokens":
        ax.yaxis.set_major_formatter(FuncFormatter(_thousands))


def _draw_arm(ax: Axes, arm: str, own: pd.DataFrame, places: Sequence[float]) -> None:
    look = style.look_of_arm(arm)
    line = "none" if arm == SEQUENTIAL else look.linestyle
    ax.plot(places, own["value"], color=look.color, marker=look.marker, linestyle=line)
    for (_, mark), place in zip(own.iterrows(), places, strict=True):
        below, above = mark["value"] - mark["low"], mark["high"] - mark["value"]
        ax.errorbar(
            place,
            mark["value"],
            yerr=[[max(0.0, below)], [max(0.0, above)]],
            color=look.color,
            linestyle="none",
            elinewidth=0.8,
            capsize=2.5 if mark["bar"] == INTERVAL else 0.0,
        )


def _say_why_empty(ax: Axes, marks: pd.DataFrame, panel: Panel) -> None:
    """A panel without a mark says why."""
    omitted = marks.loc[marks["arm"] != SEQUENTIAL, "speedup_omitted_reason"].dropna()
    if not marks["num_timing_blocks"].sum():
        text = "no valid\ntiming block"
    elif panel.measure != "speedup":
        text = "no compaction"
    else:
        text = style.wrapped(str(omitted.iloc[0]), 1.2) if len(omitted) else "no parallel arm"
    ax.set_yticks([])
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center")


def _arms(marks: pd.DataFrame) -> list[str]:
    """Arms in a fixed order: sequential, then the layouts by name."""
    return sorted(marks["arm"].unique(), key=lambda arm: (arm != SEQUENTIAL, arm))


def _legend_entry(arm: str) -> Line2D:
    look = style.look_of_arm(arm)
    label = arm if arm == SEQUENTIAL else f"parallel, {arm}"
    return Line2D(
        [], [], color=look.color, marker=look.marker, linestyle=look.linestyle, label=label
    )


def _title(group: pd.DataFrame, width_in: float, several_experiments: bool) -> str:
    first = group.iloc[0]
    lines = [style.wrapped(str(first["backbone"]), width_in)]
    lines.append(style.wrapped(str(first["dataset"]), width_in))
    if several_experiments:
        lines.append(style.wrapped(str(first["experiment"]), width_in))
    arms = group[group["measure"] == "wall"]
    num_invalid = int(arms["num_invalid_cells"].sum())
    invalid = f", {num_invalid} invalid" if num_invalid else ""
    fewest, most = int(arms["num_timing_blocks"].min()), int(arms["num_timing_blocks"].max())
    n = f"{most}" if fewest == most else f"{fewest} to {most}"
    lines.append(style.wrapped(f"n = {n}{invalid}", width_in))
    return "\n".join(lines)


def _notes(marks: pd.DataFrame) -> Iterator[str]:
    """What a reader must know to read the figure; the scale comes first."""
    captions = marks.dropna(subset=["caption"])
    for caption, rows in captions[captions["caption"] != ""].groupby("caption", sort=False):
        everywhere = set(rows["backbone"]) == set(marks["backbone"])
        backbones = "" if everywhere else f"{', '.join(rows['backbone'].unique())}: "
        yield f"{backbones}{caption}."
    yield from _setting_notes(marks)
    yield "Marks: means over n timing blocks; speed-up: geometric mean inside timing blocks."
    kinds = set(marks.loc[marks["low"] < marks["high"], "bar"])
    bars = {INTERVAL: "capped bars: 95% interval", RANGE: "plain bars: minimum to maximum"}
    told = "; ".join(words for kind, words in bars.items() if kind in kinds)
    if told:
        yield f"{told[0].upper()}{told[1:]}."
    yield "Total tokens: prompt, cached or not, and completion of all requests."
    if (marks["num_invalid_cells"] > 0).any():
        yield "Invalid: cells whose times do not count, left out."
    if (marks["num_unequal_volume_timing_blocks"] > 0).any():
        yield "Speed-up: timing blocks of unequal compaction volume left out."


def _setting_notes(marks: pd.DataFrame) -> Iterator[str]:
    """Trigger and volume, once where all experiments agree."""
    settings = ["tau_tokens", "volume_mode"]  # a natural cap differs from arm to arm
    shown = marks.drop_duplicates(["experiment", *settings])
    if len(shown.drop_duplicates([*settings, "volume_tokens"])) == 1:
        shown = shown.head(1)
    for row in shown.to_dict("records"):
        name = f"{row['experiment']}: " if len(shown) > 1 else ""
        forced = row["volume_mode"] == "forced"
        volume = f"forced at {row['volume_tokens']:,} tokens" if forced else "natural"
        yield f"{name}tau = {row['tau_tokens']:,} tokens; decode volume of a compaction: {volume}."


def _size_labels(sizes: Sequence[int]) -> list[str]:
    """Block sizes in short, or in full where short forms would coincide."""
    short = [_short_size(int(size)) for size in sizes]
    return short if len(set(short)) == len(short) else [str(size) for size in sizes]


def _short_size(size: int) -> str:
    for unit in (1024, 1000):
        if size >= unit and size % unit == 0:
            return f"{size // unit}k"
    return str(size)


def _thousands(value: float, _position: int | None = None) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"
