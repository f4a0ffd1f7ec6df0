"""Figure `compaction_stability`: how much the summaries of one input differ from run to run.

The paper's Table 5 as a picture: the coefficient of variation of the output length, and how
alike two summaries are. A row of arms for each length of the history; every input has a mark of
its own, and inputs of one arm stand beside each other. A cosine depends on its embedder, which
is named below.
"""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from blockwise.figures import notes
from blockwise.figures.axes import Sizes, size_words
from blockwise.figures.marks import Panel, Statistic, marks_of
from blockwise.figures.panels import Sheet, draw_sheet

TABLE = "compaction_stability"
PANELS = (
    Panel(
        "output_cv",
        "CV of summary\ntokens",
        Statistic("output_cv", "num_repeats", "output_cv_low", "output_cv_high"),
    ),
    Panel(
        "cosine",
        "mean cosine of\ntwo summaries",
        Statistic("cosine_mean", "cosine_num_repeats", "cosine_low", "cosine_high"),
    ),
)
KEPT = (
    *notes.VOLUME_LABELS,
    "session_id",
    "seed",
    "input_tokens",
    "temperature",
    "num_repeats",
    "embedder",
)
REASONS = {"output_cv": "fewer than 2 repeats", "cosine": "no two summaries were compared"}


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Exactly what is drawn: one row a mark, the shortest histories first."""
    marks = marks_of(table, PANELS, KEPT).sort_values("history_tokens", kind="stable")
    reasons = marks["measure"].map(REASONS).where(marks["value"].isna())
    return marks.assign(omitted_reason=reasons.astype("str"))


def draw(table: pd.DataFrame) -> Figure:
    """The figure of the table `compaction_stability`."""
    return draw_sheet(plotted(table), SHEET)


def _num_words(group: pd.DataFrame) -> str:
    num_inputs = len(group[["session_id", "seed"]].drop_duplicates())
    inputs = "1 input" if num_inputs == 1 else f"{num_inputs} inputs"
    return f"{inputs}, n = {notes.count_words(group['num_repeats'].astype(int))} repeats"


def _notes(marks: pd.DataFrame) -> Iterator[str]:
    return notes.mark_notes(marks, "Marks: one input each, over its n repeats.", _more(marks))


def _more(marks: pd.DataFrame) -> Iterator[str]:
    is_open = marks["low"].notna() & marks["high"].isna()
    if is_open.any():
        yield "A bar that ends at its mark is open there: the interval has no bound."
    for embedder in marks["embedder"].dropna().unique():
        yield f"Cosine: {notes.sentence(embedder)}"
    temperatures = marks["temperature"].dropna().unique()
    yield f"Temperature: {', '.join(f'{value:g}' for value in sorted(temperatures))}."


SHEET = Sheet(
    panels=PANELS,
    axis=Sizes(
        label="block size B by history (tokens)",
        outer="history_tokens",
        outer_words=lambda tokens: f"history {size_words(tokens)}",
    ),
    nothing="no compaction",
    num_words=_num_words,
    notes_of=_notes,
    facts={"experiment": "{}", "prompt": "prompt {}"},
    variants=("session_id", "seed"),
)
