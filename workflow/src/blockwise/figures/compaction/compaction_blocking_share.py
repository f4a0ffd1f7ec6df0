"""Figure `compaction_blocking_share`: how much of a session the agent waits for compaction.

The paper's Table 2 as a picture: against the trigger threshold tau, the share of a session's
wall time that compaction takes, the number of compactions, and the wall time itself. A line
for each arm and block size; a larger tau makes compactions rare and each of them long.
"""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from blockwise.figures import notes
from blockwise.figures.axes import Amounts
from blockwise.figures.marks import Panel, Scale, Statistic, marks_of
from blockwise.figures.panels import Sheet, draw_sheet

TABLE = "compaction_blocking_share"
PANELS = (
    Panel(
        "compaction_stall",
        "share of time\nin compaction",
        Statistic.of("compaction_stall", "_frac"),
    ),
    Panel(
        "num_compactions", "compactions\na session", Statistic.of("num_compactions"), Scale.COUNT
    ),
    Panel("wall", "wall time\nof a session (s)", Statistic.of("wall", "_s")),
)


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Exactly what is drawn: one row a mark, with its bar and what the bar means."""
    marks = marks_of(table, PANELS, (*notes.TIMING_LABELS, "tau_tokens"))
    return notes.with_timing_reasons(marks, "no compaction")


def draw(table: pd.DataFrame) -> Figure:
    """The figure of the table `compaction_blocking_share`."""
    return draw_sheet(plotted(table), SHEET)


def _notes(marks: pd.DataFrame) -> Iterator[str]:
    means = (
        "Times and shares: means over server starts, of n timing blocks; compactions: mean over "
        "sessions and seeds. Marks at one tau stand beside each other."
    )
    more = ["Time in compaction: the agent's wait, client work included."]
    return notes.timing_notes(marks, "tau_tokens", means, more)


SHEET = Sheet(
    panels=PANELS,
    axis=Amounts(
        x="tau_tokens",
        label="trigger threshold tau (tokens)",
        line_columns=("arm", "block_size_tokens"),
        dodged=True,
    ),
    nothing=notes.UNTIMED,
    num_words=notes.timing_blocks,
    notes_of=_notes,
    facts={"experiment": "{}", "prompt": "prompt {}"},
)
