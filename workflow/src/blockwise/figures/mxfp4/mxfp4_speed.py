"""Figure `mxfp4_speed`: what a training step of each arm costs against each baseline.

A panel for each baseline and one for the arm's own other forms; a row for each arm and form.
Every ratio is formed inside a round. Compiled is compared with compiled: a mark that pairs
unlike forms says so above it.
"""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from blockwise.figures import notes
from blockwise.figures.axes import thousands
from blockwise.figures.marks import Panel, Scale, Statistic, marks_of
from blockwise.figures.rows import Column, Mark, Sheet, draw_rows

TABLE = "mxfp4_speed"
OTHER_FORMS = "other forms"
RATIO = Panel(
    "step_ratio",
    "step time",
    Statistic(
        "step_ratio_median",
        "step_ratio_num_rounds",
        minimum="step_ratio_min",
        maximum="step_ratio_max",
    ),
)
STEP = ("experiment", "arm", "form", "baseline")
KEPT = (
    "experiment",
    "caption",
    "num_parameters",
    "arm",
    "form",
    "baseline",
    "baseline_form",
    "note",
    "step_tokens",
    "num_threads",
    "device",
    "cpu",
)


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Exactly what is drawn: one row a mark.

    A baseline is shown in the form of the arm where it was timed in that form, in others only
    where it was not. Of two forms of one arm the later in the table is divided by the earlier.
    """
    forms = {form: rank for rank, form in enumerate(dict.fromkeys(table["form"]))}
    is_itself = table["arm"] == table["baseline"]
    is_later = table["form"].map(forms) > table["baseline_form"].map(forms)
    is_alike = table["note"].isna()
    has_alike = is_alike.groupby([table[name] for name in STEP]).transform("any")
    marks = marks_of(
        table[(is_itself & is_later) | (~is_itself & (is_alike | ~has_alike))], [RATIO], KEPT
    )
    return marks.assign(
        against=marks["baseline"].mask(marks["arm"] == marks["baseline"], OTHER_FORMS)
    )


def draw(table: pd.DataFrame) -> Figure:
    """The figure of the table `mxfp4_speed`."""
    marks = plotted(table)
    forms = [form for form in dict.fromkeys(table["form"]) if form in set(marks["baseline_form"])]
    sheet = Sheet(
        columns=[_column(against) for against in _panels(table, marks)],
        by="against",
        nothing="no step was timed",
        title_of=_title,
        notes_of=_notes,
        row="form",
        section="arm",
        lane="baseline_form",
        lane_words={form: f"over a step of: {form}" for form in forms},
        words_of=_words,
        is_shared=True,
    )
    return draw_rows(marks, sheet)


def _panels(table: pd.DataFrame, marks: pd.DataFrame) -> list[str]:
    """Baselines in the order of the table, then other forms."""
    found = set(marks["against"])
    return [name for name in (*dict.fromkeys(table["baseline"]), OTHER_FORMS) if name in found]


def _column(against: str) -> Column:
    whose = "the arm's other form" if against == OTHER_FORMS else against
    label = f"step time\nover {whose} (×)"
    return Column((against,), label, Scale.LOG, line=1.0, tick_words=thousands)


def _title(own: pd.DataFrame) -> str:
    first = own.iloc[0]
    threads = "1 thread" if first["num_threads"] == 1 else f"{first['num_threads']} threads"
    return f"{first['step_tokens']:,} tokens a step, {threads}, {first['device']} ({first['cpu']})"


def _words(row: Mark) -> Iterator[str]:
    yield f"{row['value']:.2f}×" + ("" if pd.isna(row["note"]) else f", {row['note']}")


def _notes(marks: pd.DataFrame) -> Iterator[str]:
    yield from notes.training_captions(marks)
    rounds = notes.count_words(marks["num"].astype(int))
    yield f"Marks: medians over n = {rounds} rounds of ratios formed inside a round."
    yield from notes.bars(marks)
    yield "Emulation on a device without FP4 costs time by construction."
