"""Figure `compaction_length_invariance`: does a longer history get a longer summary?

The paper's Table 1 as a picture, both axes logarithmic: tokens decoded, and decoded over
replaced, against the realised length of the history. The dashed lines are what a summary in
proportion to its input would have, from the shortest history on; a flat line above and a
falling one below are length invariance.
"""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from blockwise.figures import notes
from blockwise.figures.axes import Amounts
from blockwise.figures.marks import Panel, Scale, Statistic, levels_of, marks_of
from blockwise.figures.panels import Sheet, draw_sheet

TABLE = "compaction_length_invariance"
IN_PROPORTION = "in proportion"
PANELS = (
    Panel("output", "summary (tokens)", Statistic.of("output", "_tokens"), Scale.LOG2),
    Panel(
        "output_over_input",
        "summary over\nhistory tokens",
        Statistic.of("output_over_input", "_frac"),
        Scale.LOG,
    ),
)
INPUT = ("input_mean_tokens", "input_min_tokens", "input_max_tokens")
KEPT = (*notes.VOLUME_LABELS, "num_cells", *INPUT, "output_elasticity")
FACTS = {"experiment": "{}", "prompt": "prompt {}"}
LINE = ["backbone", "dataset", *FACTS, "measure", "arm", "block_size_tokens"]


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Exactly what is drawn: one row a mark, and two for each line of proportionality."""
    marks = marks_of(table, PANELS, KEPT)
    lines = [
        line
        for _, own in marks.groupby(LINE, sort=False, dropna=False)
        for line in _in_proportion(own)
    ]
    return pd.concat([marks, *lines], ignore_index=True)


def _in_proportion(own: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The line through the shortest history of an arm that a constant ratio would follow."""
    mean = INPUT[0]
    own = own[own["value"] > 0].sort_values(mean)
    if len(own) < 2:
        return
    ends = own.iloc[[0, -1]].assign(input_min_tokens=None, input_max_tokens=None)
    ends = ends.astype(own.dtypes.to_dict())
    first, last = ends[mean].astype(float)
    grown = last / first if ends["measure"].iloc[0] == "output" else 1.0
    value = float(ends["value"].iloc[0])
    yield levels_of(ends, IN_PROPORTION, [value, value * grown])


def draw(table: pd.DataFrame) -> Figure:
    """The figure of the table `compaction_length_invariance`."""
    return draw_sheet(plotted(table), SHEET)


def _num_words(group: pd.DataFrame) -> str:
    cells = notes.count_words(group["num_cells"].astype(int))
    slopes = group["output_elasticity"].dropna().astype(float).unique()
    if not len(slopes):
        return f"n = {cells}"
    ends = dict.fromkeys(f"{slope:.2f}" for slope in (slopes.min(), slopes.max()))
    return f"n = {cells}, slope {' to '.join(ends)}"


def _notes(marks: pd.DataFrame) -> Iterator[str]:
    means = "Marks: means over clusters (session and seed) of n compactions, thinking included."
    slope = "Slope of log summary on log history: 0 is length-invariant, 1 in proportion."
    has_slope = marks["output_elasticity"].notna().any()
    return notes.mark_notes(marks, means, [slope] if has_slope else [])


SHEET = Sheet(
    panels=PANELS,
    axis=Amounts(
        x=INPUT[0],
        label="history that is compacted (tokens)",
        line_columns=("arm", "block_size_tokens"),
        ticks="history_tokens",
        x_low=INPUT[1],
        x_high=INPUT[2],
    ),
    nothing="no compaction",
    num_words=_num_words,
    notes_of=_notes,
    facts=FACTS,
)
