"""Figure `mxfp4_outliers`: the error of Wgrad under outliers that are made to order.

A panel for each pattern: normal operands beside each other, and along the size of token outliers
or channel means, logarithmic, a line for each arm. Where deterministic and randomized rotations
part, it is the random signs that matter. Arms at one size stand beside each other.
"""

from collections.abc import Iterator, Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from blockwise.figures import notes, style
from blockwise.figures.axes import lane_shifts, thousands
from blockwise.figures.grid import Grid, PanelArray, draw_bar, drawn, entry
from blockwise.figures.marks import Panel, Statistic, marks_of

TABLE = "mxfp4_outliers"
ERROR = Panel(
    "relative_error",
    "relative error of dW",
    Statistic.of("relative_error", num="relative_error_num_seeds"),
)
KEPT = (
    "experiment",
    "caption",
    "arm",
    "pattern",
    "outlier_size",
    "outlier_token_frac",
    "num_tokens",
    "num_features",
)
PATTERN_WORDS = {
    "gaussian": "normal operands",
    "token_outliers": "token outliers in dy",
    "channel_means": "channel means in x",
}
DODGE = 0.25  # all arms of one size together, in steps between sizes or patterns
PANEL_HEIGHT_IN = 2.0
WITHOUT_SIZE_FRAC = 0.45  # width of a panel without a number line, of one with it


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Exactly what is drawn: one row a mark, with its bar and what the bar means."""
    return marks_of(table, [ERROR], KEPT)


def draw(table: pd.DataFrame) -> Figure:
    """The figure of the table `mxfp4_outliers`."""
    return drawn(plotted(table), "no outlier was made", _figure_of)


def _figure_of(marks: pd.DataFrame) -> Figure:
    looks = {arm: style.look_of_rank(rank) for rank, arm in enumerate(marks["arm"].unique())}
    bands = [own for _, own in marks.groupby("experiment", sort=False)]
    patterns = [name for name in PATTERN_WORDS if (marks["pattern"] == name).any()]
    panels_in = len(bands) * (PANEL_HEIGHT_IN + 5 * style.LINE_HEIGHT_IN)
    widths = [WITHOUT_SIZE_FRAC if name == "gaussian" else 1.0 for name in patterns]

    def fill(_: Figure, axes: PanelArray) -> None:
        for own, stack in zip(bands, axes, strict=True):
            for ax, pattern in zip(stack, patterns, strict=True):
                _draw_pattern(ax, own[own["pattern"] == pattern], looks)
                several = len(bands) > 1 and ax is stack[0]
                name = [own["experiment"].iloc[0]] if several else []
                ax.set_title("\n".join([*name, PATTERN_WORDS[pattern]]))
            stack[0].set_ylabel(ERROR.label)

    grid = Grid(panels_in, _entries(looks), _notes(marks))
    return grid.filled((len(bands), len(patterns)), fill, sharey="row", width_ratios=widths)


def _draw_pattern(ax: Axes, marks: pd.DataFrame, looks: Mapping[str, style.Look]) -> None:
    """The arms under one pattern; a pattern without a size has no number line."""
    sizes = sorted(marks["outlier_size"].astype("float64").unique())
    has_line = bool(sizes) and sizes[0] > 0
    shifts = lane_shifts(list(looks), DODGE / max(1, len(looks)))
    for arm, own in marks.sort_values("outlier_size", kind="stable").groupby("arm", sort=False):
        look = looks[str(arm)]
        step = 2.0 if len(sizes) < 2 else (sizes[-1] / sizes[0]) ** (1 / (len(sizes) - 1))
        for_sizes = own["outlier_size"].astype("float64")
        places = for_sizes * step ** shifts[arm] if has_line else for_sizes + shifts[arm]
        ax.plot(places, own["value"], color=look.color, linestyle=look.linestyle)
        for place, mark in zip(places, own.to_dict("records"), strict=True):
            draw_bar(ax, mark, place, look.color)
            ax.plot([place], [mark["value"]], color=look.color, marker=look.marker)
    if has_line:
        ax.set_xscale("log", base=2)
        ax.set_xticks(sizes, [thousands(size) for size in sizes])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel("size (standard deviations)")
    else:
        ax.set_xticks([])
        ax.set_xlim(-DODGE, DODGE)
        ax.set_xlabel("no outliers")
    ax.yaxis.set_major_locator(MaxNLocator(5))


def _entries(looks: Mapping[str, style.Look]) -> list[Line2D]:
    return [
        entry(arm, look.color, marker=look.marker, linestyle=look.linestyle)
        for arm, look in looks.items()
    ]


def _notes(marks: pd.DataFrame) -> Iterator[str]:
    yield from notes.training_captions(marks)
    first = marks.iloc[0]
    yield (
        f"Marks: means over n = {notes.count_words(marks['num'].astype(int))} seeds of synthetic "
        f"operands, {first['num_tokens']:,} tokens by {first['num_features']:,} features."
    )
    yield from notes.bars(marks)
    yield (
        f"Token outliers: {first['outlier_token_frac']:.1%} of the tokens of dy are larger by the "
        "size; channel means: each channel of x is offset by about the size, of either sign."
    )
