"""Figure `compaction_layouts`: what a worker is shown, and what that costs and keeps.

A study of ours, at equal volume and history. From top to bottom the prompt tokens that the
engine had to compute, the first-token latency of the workers, the wall time and the decode rate
of the compaction, and beside them the recall that the same layout and block size keep. From
left to right sequential, then ever smaller history blocks with the number of workers below;
layouts at one block size stand beside each other.
"""

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
from matplotlib.figure import Figure

from blockwise.figures import notes
from blockwise.figures.axes import Sizes
from blockwise.figures.marks import Panel, Scale, Statistic, marks_of
from blockwise.figures.panels import Sheet, draw_sheet

TABLE = "compaction_layouts"
RECALL, CONTAINS_GOLD = "recall_f1", "recall_contains_gold"
COSTS = (
    Panel(
        "worker_uncached",
        "uncached prompt\ntokens of workers",
        Statistic.of("worker_uncached", "_tokens"),
        Scale.TOKENS,
    ),
    Panel(
        "worker_mean_ttft",
        "first token of\na worker (s)",
        Statistic.of("worker_mean_ttft", "_s"),
    ),
    Panel(
        "compaction_wall",
        "wall time of a\ncompaction (s)",
        Statistic.of("compaction_wall", "_s"),
    ),
    Panel(
        "compaction_decode",
        "compaction\ntokens/s",
        Statistic.of("compaction_decode", "_tokens_per_s"),
    ),
)
PANELS = (
    *COSTS,
    Panel(RECALL, "recall (F1)", Statistic.of(RECALL), reason="recall_note"),
    Panel(
        CONTAINS_GOLD,
        "recall\n(contains gold)",
        Statistic.of(CONTAINS_GOLD),
        reason="recall_note",
    ),
)
KEPT = (
    *notes.TIMING_LABELS,
    "history_tokens",
    "num_blocks_median",
    "recall_num_answers",
    "recall_note",
    "recall_gate",
)


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Exactly what is drawn: one row a mark, with its bar and what the bar means."""
    marks = marks_of(table, PANELS, KEPT)
    return notes.with_timing_reasons(marks, "the engine does not report it")


def draw(table: pd.DataFrame) -> Figure:
    """The figure of the table `compaction_layouts`; without recall in it, the costs alone."""
    marks = plotted(table)
    with_recall = marks.loc[marks["measure"] == RECALL, "value"].notna().any()
    return draw_sheet(marks, SHEET if with_recall else replace(SHEET, panels=COSTS))


def _notes(marks: pd.DataFrame) -> Iterator[str]:
    means = "Marks: means over server starts, of n timing blocks; first token: mean over workers."
    seen = marks[(marks["measure"] == RECALL) & marks["value"].notna()]
    return notes.timing_notes(marks, "history_tokens", means, _recall_notes(seen))


def _recall_notes(recall: pd.DataFrame) -> Iterator[str]:
    if recall.empty:
        return
    answers = notes.count_words(recall["recall_num_answers"].astype(int))
    yield (
        f"Recall: means over clusters of answers (n = {answers}; of LoCoMo categories 1, 2 and 4), "
        "from deferred sessions."
    )
    yield from notes.said_once(recall, recall, "recall_note", ("backbone", "dataset"))
    yield from notes.gate_notes(recall, "recall_gate")


SHEET = Sheet(
    panels=PANELS,
    axis=Sizes(label="block size B (tokens), workers below", num_workers="num_blocks_median"),
    nothing=notes.UNTIMED,
    num_words=notes.timing_blocks,
    notes_of=_notes,
    facts={"experiment": "{}", "history_tokens": "history {:,} tokens", "prompt": "prompt {}"},
)
