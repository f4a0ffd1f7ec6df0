"""Figure `compaction_matched_volume`: speed where sequential and parallel decode as much.

The paper's Table 9 as a picture, in a column of panels for each rule that makes volumes
equal: `forced`, where every compaction decodes the same number of tokens, and `matched`,
where of each layout the block size is shown whose natural volume is closest to sequential's.
From top to bottom the decode rate of compaction and the wall time against sequential, the
time per output token of the workers, and the agent's wait. Where no block size could be
matched the panels say why.
"""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from blockwise.figures import notes
from blockwise.figures.axes import Sizes
from blockwise.figures.marks import Bar, Panel, Scale, Statistic, marks_of
from blockwise.figures.panels import Sheet, draw_sheet

TABLE = "compaction_matched_volume"
PANELS = (
    Panel(
        "compaction_decode_ratio",
        "compaction\ntokens/s over\nsequential (×)",
        Statistic.of("compaction_decode_ratio"),
        Scale.RATIO,
        reason="omitted_reason",
    ),
    Panel(
        "speedup",
        "session speed-up\nover sequential\n(×)",
        Statistic.of("speedup"),
        Scale.RATIO,
        reason="omitted_reason",
    ),
    Panel(
        "worker_tpot",
        "time per output\ntoken (s)",
        Statistic.of("worker_tpot", "_s"),
        reason="omitted_reason",
    ),
    Panel(
        "stall",
        "wait of the\nagent (s)",
        Statistic(
            value="stall_p50_s",
            num="stall_num_compactions",
            low="stall_p50_s",
            high="stall_p95_s",
            bar=Bar.TO_P95,
        ),
        reason="omitted_reason",
    ),
)
KEPT = (
    "volume_rule",
    *notes.TIMING_LABELS,
    "tau_tokens",
    "volume_mismatch_frac",
    "num_unequal_volume_timing_blocks",
)


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Exactly what is drawn: one row a mark, with its bar and what the bar means."""
    return notes.with_timing_reasons(marks_of(table, PANELS, KEPT), "no compaction")


def draw(table: pd.DataFrame) -> Figure:
    """The figure of the table `compaction_matched_volume`; says so where nothing is matched."""
    return draw_sheet(plotted(table), SHEET)


def _notes(marks: pd.DataFrame) -> Iterator[str]:
    means = (
        "Marks: means over server starts, of n timing blocks; ratios: geometric means, formed "
        "inside timing blocks."
    )
    return notes.timing_notes(marks, "tau_tokens", means, _more(marks))


def _more(marks: pd.DataFrame) -> Iterator[str]:
    yield "Wait: median over all compactions; of fewer than 20, the 95th percentile is the maximum."
    yield from _mismatches(marks)


def _mismatches(marks: pd.DataFrame) -> Iterator[str]:
    """How equal the matched volumes are, on the seeds that did not choose the block size."""
    matched = marks[marks["volume_rule"] == "matched"]
    parallel = matched[matched["block_size_tokens"].notna()]
    found = parallel["volume_mismatch_frac"].dropna().astype(float)
    if len(found):
        ends = dict.fromkeys(f"{share:+.0%}" for share in (found.min(), found.max()))
        yield (
            "Matched: B chosen on one half of the seeds, shown on the other; there its volume is "
            f"{' to '.join(ends)} off sequential's."
        )


SHEET = Sheet(
    panels=PANELS,
    axis=Sizes(),
    nothing=notes.UNTIMED,
    num_words=notes.timing_blocks,
    notes_of=_notes,
    facts={
        "volume_rule": "{} volume",
        "experiment": "{}",
        "tau_tokens": "tau = {:,} tokens",
        "prompt": "prompt {}",
    },
)
