"""Figure `compaction_eager`: compactions that begin before they are due.

A study of ours. A column of panels for each wait for tools, an arm beside the other: sequential,
parallel, and eager, which sends the worker of a history block as soon as the block is closed. From
top to bottom the agent's wait for one compaction, that wait and the session's wall time as ratios,
what the agent's own requests pay while workers run, and what was decoded for nothing.
"""

from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from blockwise.config.arms import Mode
from blockwise.config.choices import OpenBlock
from blockwise.figures import notes
from blockwise.figures.axes import Sizes
from blockwise.figures.marks import Panel, Scale, Statistic, marks_of
from blockwise.figures.panels import Fill, Sheet, draw_sheet

TABLE = "compaction_eager"
PANELS = (
    Panel(
        "stall",
        "stall of a\ncompaction (s)",
        Statistic.percentiles("stall", "compactions", has_p99=False),
    ),
    Panel(
        "stall_over_sequential",
        "stall over\nsequential (×)",
        Statistic.of("stall_over_sequential"),
        Scale.RATIO,
    ),
    Panel(
        "working_over_parallel",
        "wall time over\nparallel (×)",
        Statistic.of("working_over_parallel"),
        Scale.RATIO,
    ),
    Panel(
        "agent_ttft_over_parallel",
        "agent's first\ntoken (×)",
        Statistic.of("agent_ttft_over_parallel"),
        Scale.RATIO,
    ),
    Panel(
        "agent_itl_over_parallel",
        "agent's token\ngap (×)",
        Statistic.of("agent_itl_over_parallel"),
        Scale.RATIO,
    ),
    Panel("unused", "tokens that\nnobody took", Statistic.of("unused", "_tokens"), Scale.TOKENS),
)
KEPT = (
    *notes.TIMING_LABELS,
    "tau_tokens",
    "mode",
    "open_block",
    "max_background_workers",
    "tool_wait_s",
)


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Exactly what is drawn: one row a mark, with its bar and what the bar means."""
    marks = marks_of(table, PANELS, KEPT)
    marks["dispatch"] = [_dispatch_words(mark) for mark in marks.to_dict("records")]
    marks["sent"] = ["ahead" if mode == Mode.EAGER.value else "due" for mode in marks["mode"]]
    return notes.with_timing_reasons(marks, "no such pair, or no turn beside a worker")


def _dispatch_words(mark: dict[Any, Any]) -> str | None:
    """Lines of a label: when workers are sent, what is kept, and how many run ahead."""
    if mark["mode"] == Mode.SEQUENTIAL.value:
        return None
    lines = ["eager" if mark["mode"] == Mode.EAGER.value else "par."]
    if mark["open_block"] == OpenBlock.KEEP.value:
        lines.append("kept")
    if pd.notna(mark["max_background_workers"]):
        lines.append(f"by {int(mark['max_background_workers'])}")
    return "\n".join(lines)


def draw(table: pd.DataFrame) -> Figure:
    """The figure of the table `compaction_eager`; says so where nothing can be drawn."""
    return draw_sheet(plotted(table), SHEET)


def _notes(marks: pd.DataFrame) -> Iterator[str]:
    yield from notes.captions(marks)
    tau = " and ".join(f"{size:,}" for size in sorted(marks["tau_tokens"].unique()))
    volume = " and ".join(f"{size:,}" for size in sorted(marks["volume_tokens"].unique()))
    yield (
        f"tau = {tau} tokens; a worker decodes {volume} tokens, sequential what all workers of a "
        "compaction do."
    )
    yield from notes.table_notes(marks)
    yield (
        "Stalls: medians over compactions of n timing blocks; ratios: geometric means over server "
        "starts, formed inside timing blocks."
    )
    yield from notes.bars(marks)
    yield from notes.few_starts(marks)
    yield "Kept: the open history block stays verbatim; otherwise it is summarised."
    if marks["max_background_workers"].notna().any():
        yield "By 1: at most one worker before a compaction is due."
    yield "The agent's first token and gap: of turns during which workers run, over parallel's."
    yield from notes.left_out(marks)


SHEET = Sheet(
    panels=PANELS,
    axis=Sizes(
        label="block size B (tokens), when workers are sent",
        inner=("block_size_tokens", "dispatch"),
        inner_words={"dispatch": "{}"},
    ),
    nothing=notes.UNTIMED,
    num_words=notes.timing_blocks,
    notes_of=_notes,
    facts={"experiment": "{}", "tool_wait_s": "tools wait {:g} s", "prompt": "prompt {}"},
    fill=Fill("sent", "due", {"due": "sent when due", "ahead": "sent ahead"}),
)
