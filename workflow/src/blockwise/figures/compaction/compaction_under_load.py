"""Figure `compaction_under_load`: what the others on the engine notice of a compaction.

A study of ours. Bystanders send requests to the engine, first alone (hollow) and then while one
session compacts (filled). From top to bottom their first-token and inter-token latency, how
long the compaction takes, how long the agent waits for it, how many tokens the engine decodes for
everybody meanwhile, and how often it had to preempt a request. A row of arms for each number of
bystanders; lines of a label are the cap on workers, those sent ahead, their priority, and the
number of history blocks.
"""

from collections.abc import Iterator
from typing import Any

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
    Panel("stall", "the agent's\nstall (s)", Statistic.of("stall", "_s")),
    Panel("goodput", "tokens/s for\neverybody", Statistic.of("goodput", "_tokens_per_s")),
    Panel("num_preemptions", "preempted\nrequests", Statistic("num_preemptions"), Scale.COUNT),
)
KEPT = (
    *notes.TIMING_LABELS,
    "history_tokens",
    "num_bystanders",
    "num_history_blocks",
    "max_concurrent_workers",
    "max_background_workers",
    "worker_priority",
    "phase",
)


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Exactly what is drawn: one row a mark, with its bar and what the bar means."""
    marks = marks_of(table, PANELS, KEPT).sort_values("num_bystanders", kind="stable")
    marks["dispatch"] = [_dispatch_words(mark) for mark in marks.to_dict("records")]
    return notes.with_timing_reasons(marks, "the engine does not report it")


def _dispatch_words(mark: dict[Any, Any]) -> str | None:
    """Lines of a label: how many workers run at once, when, and with which priority."""
    lines = []
    for column, words in (
        ("max_concurrent_workers", "by {}"),
        ("max_background_workers", "ahead {}"),
        ("worker_priority", "prio {}"),
    ):
        if pd.notna(mark[column]) and mark[column]:
            lines.append(words.format(int(mark[column])))
    return "\n".join(lines) or None


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
    for column, words in (
        ("max_concurrent_workers", "By {}: at most so many workers at once."),
        (
            "max_background_workers",
            "Ahead {}: closed history blocks are summarised first, by at most so many workers.",
        ),
        ("worker_priority", "Prio {}: of workers; bystanders have 0 and are served first."),
    ):
        values = marks[column].dropna().astype(int)
        if values.any():
            yield words.format(values[values > 0].iloc[0])
    yield "Tokens for everybody: of the compaction, and of bystanders' requests that ended in it."


SHEET = Sheet(
    panels=PANELS,
    axis=Sizes(
        label="block size B (tokens), history blocks below",
        outer="num_bystanders",
        outer_words=lambda number: f"{number} bystanders" if number > 1 else "1 bystander",
        inner=("block_size_tokens", "dispatch"),
        inner_words={"dispatch": "{}"},
        num_workers="num_history_blocks",
    ),
    nothing=notes.UNTIMED,
    num_words=notes.timing_blocks,
    notes_of=_notes,
    facts={"experiment": "{}", "history_tokens": "history {:,} tokens", "prompt": "prompt {}"},
    variants=("num_history_blocks",),
    fill=Fill("phase", ALONE, {ALONE: "alone", DURING: "during a compaction"}),
)
