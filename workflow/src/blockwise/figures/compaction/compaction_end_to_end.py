"""Figure `compaction_end_to_end`: what parallel compaction costs and gains by block size.

The paper's Tables 7 and 8 as a picture. One column of panels a backbone and dataset; from
top to bottom the wall time of a session, its speed-up against sequential, the first-token
latency after a compaction, and the total tokens spent. From left to right sequential, then
ever smaller history blocks: more workers at once. Marks are means over server starts, bars
their interval, or their range where six starts are not at hand. Values that the paper
reports are not drawn: they belong to other models on other machines.
"""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from blockwise.figures import notes
from blockwise.figures.axes import Sizes
from blockwise.figures.marks import Panel, Scale, Statistic, marks_of
from blockwise.figures.panels import Sheet, draw_sheet

TABLE = "compaction_end_to_end"
SPEEDUP = Panel(
    "speedup",
    "speed-up over\nsequential (×)",
    Statistic.of("speedup"),
    Scale.RATIO,
    reason="speedup_omitted_reason",
)
PANELS = (
    Panel("wall", "wall time\nof a session (s)", Statistic.of("wall", "_s")),
    SPEEDUP,
    Panel(
        "ttft_after_compaction",
        "first token after\ncompaction (s)",
        Statistic.of("ttft_after_compaction", "_s"),
    ),
    Panel("total", "total tokens\nspent", Statistic.of("total", "_tokens"), Scale.TOKENS),
)
KEPT = (*notes.TIMING_LABELS, "tau_tokens", "num_unequal_volume_timing_blocks")


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Exactly what is drawn: one row a mark, with its bar and what the bar means."""
    return notes.with_timing_reasons(marks_of(table, PANELS, KEPT), "no compaction")


def draw(table: pd.DataFrame) -> Figure:
    """The figure of the table `compaction_end_to_end`; says so where nothing can be drawn."""
    return draw_sheet(plotted(table), SHEET)


def _notes(marks: pd.DataFrame) -> Iterator[str]:
    means = (
        "Times: means over server starts, of n timing blocks; speed-up: geometric mean, formed "
        "inside timing blocks. Tokens: means over sessions and seeds."
    )
    more = ["Total tokens: prompt, cached or not, and completion of all requests."]
    return notes.timing_notes(marks, "tau_tokens", means, more)


SHEET = Sheet(
    panels=PANELS,
    axis=Sizes(),
    nothing=notes.UNTIMED,
    num_words=notes.timing_blocks,
    notes_of=_notes,
    facts={"experiment": "{}", "tau_tokens": "tau = {:,} tokens", "prompt": "prompt {}"},
    has_base=True,
)
