"""Figure `mxfp4_losses`: validation loss against tokens, arm by arm.

For each experiment all runs from the start, then a panel an arm with the second half of its
runs, where arms part: as the arm computes it, solid, and with unquantized weights, dashed,
where that differs. Thin coloured lines are the arms without MXFP4, to compare with. A run that
diverged ends in a cross.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from blockwise.config.recipes import Precision
from blockwise.figures import notes, style
from blockwise.figures.axes import thousands
from blockwise.figures.grid import Grid, PanelArray, drawn, entry, say_why_empty
from blockwise.figures.marks import Panel, Statistic, marks_of

TABLE = "mxfp4_losses"
TRAINED, UNQUANTIZED = "quantized_loss", "unquantized_loss"
PANELS = (
    Panel(TRAINED, "validation loss\n(nats a token)", Statistic("quantized_loss_nats")),
    Panel(UNQUANTIZED, "validation loss\n(nats a token)", Statistic("unquantized_loss_nats")),
)
KEPT = ("experiment", "caption", "num_parameters", "arm", "seed", "step", "train_tokens")
RUN = ["experiment", "arm", "seed"]
REFERENCES = [name.value for name in Precision if name != Precision.MXFP4]
"""Arms without MXFP4: an arm is called what it does."""
LINESTYLES = {TRAINED: "-", UNQUANTIZED: (0, (4, 2))}
COLUMNS_A_BAND = 4
PANEL_HEIGHT_IN = 1.25
ZOOM_FROM_FRAC = 0.5  # of the longest run: after it arms differ by more than a line is wide
TITLE_IN = 1.5  # longest line of a title
THIN, OWN = 0.7, 1.2  # widths of lines


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Exactly what is drawn: one row a mark; the unquantized loss of an arm where it differs."""
    is_other = table["quantized_loss_nats"] != table["unquantized_loss_nats"]
    keys = [table["experiment"], table["arm"]]
    differs = is_other.fillna(value=False).groupby(keys).transform("any")
    marks = [marks_of(table, [PANELS[0]], KEPT), marks_of(table[differs], [PANELS[1]], KEPT)]
    together = pd.concat(marks, ignore_index=True)
    last = together.groupby(RUN)["step"].transform("max")
    horizon = together.groupby("experiment")["step"].transform("max")
    # Runs of an experiment have one length, and one that is not finished is no record: a run that
    # ends before the longest has diverged.
    return together.assign(is_diverged=last < horizon)


def draw(table: pd.DataFrame) -> Figure:
    """The figure of the table `mxfp4_losses`."""
    return drawn(plotted(table), "no training run", _figure_of)


def _figure_of(marks: pd.DataFrame) -> Figure:
    panels = [
        panel for _, own in marks.groupby("experiment", sort=False) for panel in _panels_of(own)
    ]
    titles = [_title(panel, marks) for panel in panels]
    num_lines = max(title.count("\n") + 1 for title in titles)
    row_in = PANEL_HEIGHT_IN + (num_lines + 2) * style.LINE_HEIGHT_IN
    num_rows = len(panels) // COLUMNS_A_BAND
    panels_in = num_rows * row_in + style.LINE_HEIGHT_IN

    def fill(_: Figure, axes: PanelArray) -> None:
        for ax, panel, title in zip(axes.ravel(), panels, titles, strict=True):
            ax.set_visible(panel is not None)
            if panel is not None:
                ax.set_title(title)
                _draw_panel(ax, panel)
        for stack in axes:
            stack[0].set_ylabel(PANELS[0].label)

    grid = Grid(panels_in, _entries(marks), _notes(marks))
    return grid.filled((num_rows, COLUMNS_A_BAND), fill)


@dataclass(frozen=True)
class _Panel:
    """What one panel shows."""

    marks: pd.DataFrame  # of the whole experiment
    arm: str | None  # None: all of them, from the start

    @property
    def horizon_tokens(self) -> float:
        return float(self.marks["train_tokens"].max())

    @property
    def from_tokens(self) -> float:
        """The last evaluation in the first half; an arm that shows all starts at the start."""
        if self.arm is None:
            return 0.0
        tokens = self.marks["train_tokens"]
        return float(tokens[tokens <= ZOOM_FROM_FRAC * self.horizon_tokens].max())

    @property
    def own(self) -> pd.DataFrame:
        """Marks of the arm itself; of all that are in MXFP4 where it shows all."""
        if self.arm is None:
            return self.marks[~self.marks["arm"].isin(REFERENCES)]
        return self.marks[self.marks["arm"] == self.arm]


def _panels_of(own: pd.DataFrame) -> list[_Panel | None]:
    """The panels of one experiment, which fill whole rows of the page."""
    panels = [_Panel(own, arm) for arm in (None, *own["arm"].unique())]
    return [*panels, *[None] * (-len(panels) % COLUMNS_A_BAND)]


def _title(panel: _Panel | None, marks: pd.DataFrame) -> str:
    if panel is None:
        return ""
    if panel.arm is None:
        several = marks["experiment"].nunique() > 1
        name = [str(panel.marks["experiment"].iloc[0])] if several else []
        return "\n".join([*name, "all arms, from the start"])
    runs = panel.own.drop_duplicates(RUN)
    num_diverged = int(runs["is_diverged"].sum())
    words = f"n = {len(runs)}"
    if num_diverged:
        words += f", {num_diverged} diverged"
    return f"{style.wrapped_arm(panel.arm, TITLE_IN)}\n{words}"


def _draw_panel(ax: Axes, panel: _Panel) -> None:
    """Runs of the arms without MXFP4, and of the arm itself on top of them."""
    start, end = panel.from_tokens, panel.horizon_tokens
    seen = panel.marks[panel.marks["train_tokens"] >= start].dropna(subset=["value"])
    is_reference = seen["arm"].isin(REFERENCES) & (seen["arm"] != panel.arm)
    references = seen[is_reference & (seen["measure"] == TRAINED)]
    own = seen[seen["arm"].isin(panel.own["arm"].unique())]
    ax.set_xlabel("tokens")
    if own.empty and (panel.arm is not None or references.empty):
        ax.set_xticks([])
        say_why_empty(ax, _why_empty(panel), 0.8 * TITLE_IN)
        return
    for arm, marks in references.groupby("arm", sort=False):
        _draw_runs(ax, marks, **_reference_options(str(arm)))
    _draw_runs(ax, own, color="black", linewidth=THIN if panel.arm is None else OWN)
    ax.set_xlim(start, start + 1.03 * (end - start))
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.xaxis.set_major_formatter(FuncFormatter(thousands))
    ax.yaxis.set_major_locator(MaxNLocator(4))
    heights = [*references["value"], *own["value"]]
    low, high = min(heights), max(heights)
    if panel.arm is None:
        high = min(high, 1.1 * max(_first_losses(panel)))  # a diverged run has no bound
    air = 0.08 * (high - low) or 0.1
    ax.set_ylim(low - air, high + air)


def _draw_runs(ax: Axes, marks: pd.DataFrame, **options: Any) -> None:
    """A line a run, with a cross at the end of one that diverged."""
    for (_, _, _, measure), run in marks.groupby([*RUN, "measure"], sort=False):
        linestyle = LINESTYLES[str(measure)]
        ax.plot(run["train_tokens"], run["value"], linestyle=linestyle, **options)
        last = run.iloc[-1]
        if last["is_diverged"]:
            ax.plot([last["train_tokens"]], [last["value"]], color=options["color"], marker="x")


def _why_empty(panel: _Panel) -> str:
    finite = panel.own.dropna(subset=["value"])
    return f"last finite loss at step {finite['step'].max()}" if len(finite) else "no finite loss"


def _first_losses(panel: _Panel) -> list[float]:
    """The losses with which runs begin."""
    marks = panel.marks.dropna(subset=["value"])
    return [float(value) for value in marks.loc[marks["step"] == marks["step"].min(), "value"]]


def _reference_options(arm: str) -> dict[str, Any]:
    look = style.look_of_rank(1 + REFERENCES.index(arm))
    return {"color": look.color, "marker": look.marker, "markersize": 2.0, "linewidth": THIN}


def _entries(marks: pd.DataFrame) -> list[Line2D]:
    entries = [entry("the arm, as it computes", "black", linestyle=LINESTYLES[TRAINED])]
    if (marks["measure"] == UNQUANTIZED).any():
        words = "the arm, weights unquantized"
        entries.append(entry(words, "black", linestyle=LINESTYLES[UNQUANTIZED]))
    found = set(marks["arm"])
    for arm in REFERENCES:
        if arm in found:
            entries.append(entry(arm, **_reference_options(arm)))
    if marks["is_diverged"].any():
        entries.append(entry("diverged", "black", marker="x", linestyle="none"))
    return entries


def _notes(marks: pd.DataFrame) -> Iterator[str]:
    yield from notes.training_captions(marks)
    yield "Lines: one run each, n seeds an arm; panels of one arm: the second half of the runs."
    if (marks["measure"] == UNQUANTIZED).any():
        yield "Unquantized: the same weights, multiplied in float32; not drawn where it is equal."
