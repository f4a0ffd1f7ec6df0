"""Figure `mxfp4_ladder`: how many more tokens an arm needs than each baseline.

A panel for each baseline, a row for each arm: the extra tokens until the arm has the baseline's
target loss. What the paper reports against FP8 is a shade behind the mark, read from the table.
A row where nothing is decided says `not powered`; seeds that did not reach the target, and
seeds that diverged, are counted in words, and the bound that they leave is an open triangle.
"""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from blockwise.figures import notes
from blockwise.figures.marks import Bar, Panel, Scale, Statistic, marks_of
from blockwise.figures.rows import Column, Mark, Sheet, draw_rows
from blockwise.figures.scales import percent

TABLE = "mxfp4_ladder"
AT_LEAST = "overhead_at_least_frac"
OVERHEAD = Statistic.of("overhead", "_frac", num="overhead_num_seeds")
PANELS = (
    Panel("overhead", "extra tokens", OVERHEAD),
    Panel(
        "overhead_at_least",
        "extra tokens",
        Statistic(AT_LEAST, "num_seeds", AT_LEAST, AT_LEAST, bar=Bar.AT_LEAST),
    ),
)
REPORTED = Panel(
    "reported",
    "extra tokens",
    Statistic("reported_low_frac", low="reported_low_frac", high="reported_high_frac"),
)
KEPT = (
    *notes.PAIR_LABELS,
    "target_step",
    "target_loss_mean_nats",
    "horizon_tokens",
    "num_reached",
    "num_not_reached",
    "num_no_target",
    "verdict",
    "reported_outcome",
    "reported_source",
)


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Exactly what is drawn: one row a mark; a baseline is not compared with itself."""
    compared = table[table["arm"] != table["baseline"]]
    told = compared[compared["reported_low_frac"].notna()]
    reported = marks_of(told, [REPORTED], KEPT)
    reported = reported.assign(bar=None, level=reported["reported_source"])
    marks = marks_of(compared, PANELS, KEPT)
    reported = reported.astype(marks.dtypes.to_dict())
    order = {arm: rank for rank, arm in enumerate(dict.fromkeys(table["arm"]))}
    together = pd.concat([marks, reported], ignore_index=True)
    return together.sort_values("arm", key=lambda arms: arms.map(order), kind="stable")


def draw(table: pd.DataFrame) -> Figure:
    """The figure of the table `mxfp4_ladder`."""
    baselines = list(dict.fromkeys(table["baseline"]))
    columns = [
        Column(
            (baseline,),
            f"extra tokens to the target\nagainst {baseline}",
            Scale.DIFFERENCE,
            tick_words=percent,
        )
        for baseline in baselines
    ]
    sheet = Sheet(
        columns=columns,
        by="baseline",
        nothing="no training run beside a baseline",
        title_of=_title,
        notes_of=_notes,
        words_of=_words,
        is_shared=True,
    )
    return draw_rows(plotted(table), sheet)


def _title(own: pd.DataFrame) -> str:
    first = own.iloc[0]
    target = f"each baseline's validation loss at step {first['target_step']}"
    if pd.isna(first["target_step"]):
        loss = own["target_loss_mean_nats"].max()  # one for all; absent where no baseline has it
        target = "a set validation loss" if pd.isna(loss) else f"a validation loss of {loss:g}"
    return f"target: {target}; horizon {first['horizon_tokens']:,} tokens"


def _words(row: Mark) -> Iterator[str]:
    """What is known of one arm against one baseline beside the mark."""
    verdict: str = "" if pd.isna(row["verdict"]) else f"{row['verdict']}, "
    yield f"{verdict}n = {row['num_seeds']}"
    if row["num_no_target"]:
        yield f"{row['num_no_target']} without target"
    if row["num_not_reached"]:
        yield f"{row['num_not_reached']} not reached"
    if row["num_diverged"]:
        yield f"{row['num_diverged']} diverged, first at step {row['first_divergence_step']}"
    if not pd.isna(row["reported_outcome"]) and row["reported_outcome"] != "reached":
        yield f"reported: {row['reported_outcome']}"


def _notes(marks: pd.DataFrame) -> Iterator[str]:
    yield from notes.training_captions(marks)
    yield "Marks: means over n seeds of tokens to the target over the baseline's, less 1."
    yield from notes.bars(marks)
    seen = marks.dropna(subset=["value"])
    if (seen["measure"] == "overhead_at_least").any():
        yield (
            "Open triangle: lower bound; seeds that diverged or did not get there count with the "
            "horizon."
        )
    if (marks["verdict"] == "not powered").any():
        yield "Not powered: the interval includes zero, or there are too few seeds for one."
    if marks["reported_source"].notna().any():
        yield (
            "Reported: arXiv 2605.09825, Llama 3.1-8B on C4 against FP8, by a secondary reading; "
            "at another scale than what was measured."
        )
