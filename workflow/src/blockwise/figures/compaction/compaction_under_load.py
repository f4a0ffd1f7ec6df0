"""Figure `compaction_under_load`: what the others on the engine notice of a compaction.

A study of ours. Bystanders send requests to the engine, first alone (hollow) and then while one
session compacts (filled). From top to bottom their first-token and inter-token latency, how
long the compaction takes, how many tokens the engine decodes for everybody meanwhile, and
how often it had to preempt a request. A row of arms for each number of bystanders; a second line
of a label is the cap on workers at once, the last the number of history blocks.
"""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from blockwise.figures import notes
from blockwise.figures.axes import Sizes
from blockwise.figures.marks import Panel, Scale, Statistic, marks_of
from blockwise.figures.panels import Fill, Sheet, draw_sheet

TABLE = "compaction_under_load"
ALONE, DURING = "alone", "during"
PANELS = (
    Panel("ttft", "first token of\nbystanders (s)", Statistic.percentiles("ttft")),
    Panel("itl", "token gap of\nbystanders (s)", Statistic.percentiles("itl")),
    Panel(
        "compaction_wall",
        "wall time of a\ncompaction (s)",
        Statistic.of("compaction_wall", "_s"),
    ),
    Panel("goodput", "tokens/s for\neverybody", Statistic.of("goodput", "_tokens_per_s")),
    Panel("num_preemptions", "preempted\nrequests", Statistic("num_preemptions"), Scale.COUNT),
)
KEPT = (
    *notes.TIMING_LABELS,
    "history_tokens",
    "num_bystanders",
    "num_history_blocks",
    "max_concurrent_workers",
    "phase",
)


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Exactly what is drawn: one row a mark, with its bar and what the bar means."""
    marks = marks_of(table, PANELS, KEPT).sort_values("num_bystanders", kind="stable")
    return notes.with_timing_reasons(marks, "the engine does not report it")


def draw(table: pd.DataFrame) -> Figure:
    """The figure of the table `compaction_under_load`."""
    return draw_sheet(plotted(table), SHEET)


def _notes(marks: pd.DataFrame) -> Iterator[str]:
    means = (
        "Latencies: medians over all requests of n timing blocks, the gap of tokens is the mean "
        "inside one request; the rest: means over server starts."
    )
    return notes.timing_notes(marks, "history_tokens", means, _more(marks))


def _more(marks: pd.DataFrame) -> Iterator[str]:
    if marks["beyond"].notna().any():
        yield "Dashes above: 99th percentile, of 100 requests or more."
    caps = marks["max_concurrent_workers"].dropna().astype(int)
    if len(caps):
        yield f"By {caps.iloc[0]}: at most so many workers at once."
    yield "Tokens for everybody: of the compaction, and of bystanders' requests that ended in it."


SHEET = Sheet(
    panels=PANELS,
    axis=Sizes(
        label="block size B (tokens), history blocks below",
        outer="num_bystanders",
        outer_words=lambda number: f"{number} bystanders" if number > 1 else "1 bystander",
        inner=("block_size_tokens", "max_concurrent_workers"),
        inner_words={"max_concurrent_workers": "by {}"},
        num_workers="num_history_blocks",
    ),
    nothing=notes.UNTIMED,
    num_words=notes.timing_blocks,
    notes_of=_notes,
    facts={"experiment": "{}", "history_tokens": "history {:,} tokens", "prompt": "prompt {}"},
    variants=("num_history_blocks",),
    fill=Fill("phase", ALONE, {ALONE: "alone", DURING: "during a compaction"}),
)
