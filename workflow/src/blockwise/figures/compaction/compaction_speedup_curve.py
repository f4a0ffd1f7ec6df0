"""Figure `compaction_speedup_curve`: the speed-up of a session against what there is to speed up.

It draws the table `compaction_end_to_end`. One speed-up is a choice of knobs: the longer the
answers, the smaller the share of a session that sequential compaction takes, and the less any
compaction can gain. A mark is an arm of an experiment; its x is the share that sequential takes in
the same timing blocks. Experiments that differ in `answer_tokens` alone make the curve.
"""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from blockwise.config.arms import SEQUENTIAL
from blockwise.figures import notes
from blockwise.figures.axes import Amounts
from blockwise.figures.compaction.compaction_end_to_end import SPEEDUP
from blockwise.figures.marks import marks_of
from blockwise.figures.panels import Sheet, draw_sheet

TABLE = "compaction_end_to_end"
SHARE = "sequential_stall_mean_frac"
PANELS = (SPEEDUP,)
KEPT = (
    *notes.TIMING_LABELS,
    "tau_tokens",
    "answer_tokens",
    SHARE,
    "num_unequal_volume_timing_blocks",
)


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Exactly what is drawn: one row an arm beside sequential, by the share of sequential."""
    marks = marks_of(table[table["arm"] != SEQUENTIAL], PANELS, KEPT)
    return notes.with_timing_reasons(marks.sort_values(SHARE, kind="stable"), "no speed-up")


def draw(table: pd.DataFrame) -> Figure:
    """The figure of the table `compaction_end_to_end`; says so where nothing can be drawn."""
    return draw_sheet(plotted(table), SHEET)


def _notes(marks: pd.DataFrame) -> Iterator[str]:
    lengths = notes.count_words(marks["answer_tokens"].astype(int))
    means = (
        "Speed-up: geometric mean over server starts, formed inside timing blocks. The share is "
        f"of sequential in the same timing blocks; answers have {lengths} tokens."
    )
    return notes.timing_notes(marks, "tau_tokens", means)


SHEET = Sheet(
    panels=PANELS,
    axis=Amounts(
        x=SHARE,
        label="share of a session that sequential compaction takes",
        line_columns=("arm", "block_size_tokens"),
        log2=False,
    ),
    nothing=notes.UNTIMED,
    num_words=notes.timing_blocks,
    notes_of=_notes,
    facts={"tau_tokens": "tau = {:,} tokens", "prompt": "prompt {}"},
)
