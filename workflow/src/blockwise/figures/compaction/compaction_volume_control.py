"""Figure `compaction_volume_control`: does the prompt, or the block size, set the volume?

The paper's Table 10 as a picture. A row of arms for each prompt of the verbosity ladder, from
terse to wordy; from top to bottom the share of the history that the summaries have, with the
share that the prompt asks for as a level line, its variation over compactions, and the share of
workers that were cut off at their cap.
"""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from blockwise.figures import notes
from blockwise.figures.axes import Sizes
from blockwise.figures.marks import Panel, Scale, Statistic, levels_of, marks_of
from blockwise.figures.panels import Sheet, draw_sheet

TABLE = "compaction_volume_control"
ASKED_FOR = "asked for"
PANELS = (
    Panel(
        "output_over_input",
        "summary over\nhistory tokens",
        Statistic.of("output_over_input", "_frac"),
        Scale.LOG,
    ),
    Panel("output_cv", "CV of summary\ntokens", Statistic("output_cv", "num_cells")),
    Panel(
        "length_finish", "share of workers\ncut off", Statistic("length_finish_frac", "num_cells")
    ),
)
KEPT = (*notes.VOLUME_LABELS, "target_frac", "num_cells")
FACTS = {"experiment": "{}", "history_tokens": "history {:,} tokens"}
REASONS = {"output_cv": "fewer than 2 compactions"}


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Exactly what is drawn: the tersest prompt first, with a row for what it asks for."""
    marks = marks_of(table, PANELS, KEPT)
    reasons = marks["measure"].map(REASONS).where(marks["value"].isna())
    marks["omitted_reason"] = reasons.astype("str")
    targets = marks[(marks["measure"] == PANELS[0].measure) & marks["target_frac"].notna()]
    targets = targets.drop_duplicates(["backbone", "dataset", *FACTS, "prompt"])
    levels = levels_of(targets, ASKED_FOR, targets["target_frac"].astype(float))
    both = pd.concat([marks, levels], ignore_index=True)
    return both.sort_values("target_frac", kind="stable", ignore_index=True)


def draw(table: pd.DataFrame) -> Figure:
    """The figure of the table `compaction_volume_control`."""
    return draw_sheet(plotted(table), SHEET)


def _num_words(group: pd.DataFrame) -> str:
    return f"n = {notes.count_words(group['num_cells'].astype(int))}"


def _notes(marks: pd.DataFrame) -> Iterator[str]:
    means = (
        "Marks: means over clusters (session and seed) of n compactions, thinking included; CV: "
        "over all of them."
    )
    order = "Prompts: from the one that asks for least to the one that asks for most."
    return notes.mark_notes(marks, means, [order])


SHEET = Sheet(
    panels=PANELS,
    axis=Sizes(label="block size B (tokens) by prompt", outer="prompt"),
    nothing="no compaction",
    num_words=_num_words,
    notes_of=_notes,
    facts=FACTS,
)
