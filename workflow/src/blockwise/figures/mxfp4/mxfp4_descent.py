"""Figure `mxfp4_descent`: what a step along each arm's gradient gains, as a share of a reference's.

A row for each arm. From left to right the cosine with the float32 gradient, and the gain in
held-out loss over the reference's, of a step of equal length and of one along the signs. The null
arm, float32 summed in another order, shows what of a difference is nothing.
"""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from blockwise.figures import notes
from blockwise.figures.marks import Panel, Scale, Statistic, marks_of
from blockwise.figures.rows import Column, Mark, Sheet, draw_rows

TABLE = "mxfp4_descent"
COSINE = Panel("cosine", "cosine", Statistic.of("cosine", num="cosine_num_starts"))
SHARE = Panel("share", "share", Statistic.of("share", "_frac", num="share_num_starts"))
SHARES = {"equal length": "share_equal", "signs": "share_signs"}
KEPT = (
    "experiment",
    "caption",
    "num_parameters",
    "step",
    "reference",
    "arm",
    "num_micro_batches",
    "num_asked_starts",
    "share_verdict",
)


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Exactly what is drawn: one row a mark; a cosine is the same for both steps."""
    is_equal = table["step"] == "equal length"
    cosines = marks_of(table[is_equal], [COSINE], KEPT)
    shares = marks_of(table, [SHARE], KEPT)
    shares = shares.assign(measure=shares["step"].map(SHARES).astype("str"))
    return pd.concat([cosines, shares], ignore_index=True)


def draw(table: pd.DataFrame) -> Figure:
    """The figure of the table `mxfp4_descent`."""
    return draw_rows(plotted(table), SHEET)


def _title(own: pd.DataFrame) -> str:
    first = own.iloc[0]
    return f"share of what {first['reference']} gains, {first['num_micro_batches']} micro-batches"


def _words(row: Mark) -> Iterator[str]:
    """How many starts a mark has, where it is none of the intended number."""
    if row["measure"] == "cosine" and row["num"] != row["num_asked_starts"]:
        yield f"n = {row['num']}"


def _notes(marks: pd.DataFrame) -> Iterator[str]:
    yield from notes.training_captions(marks)
    asked = notes.count_words(marks["num_asked_starts"].astype(int))
    yield (
        f"Marks: means over n = {asked} starts unless said, each with its own text; all arms of a "
        "start see the same. Gains are falls of held-out loss, in float32 arithmetic."
    )
    yield from notes.bars(marks)
    yield "Only the weights of the layers that quantize move."


SHEET = Sheet(
    columns=[
        Column(("cosine",), "cosine with the\nfloat32 gradient", Scale.NEAR_ONE),
        Column(("share_equal",), "share of the gain,\nstep of equal length", Scale.RATIO, line=1.0),
        Column(("share_signs",), "share of the gain,\nstep along the signs", Scale.RATIO, line=1.0),
    ],
    by="measure",
    nothing="no step from a published model was taken",
    title_of=_title,
    notes_of=_notes,
    words_of=_words,
    band=("experiment", "reference"),
)
