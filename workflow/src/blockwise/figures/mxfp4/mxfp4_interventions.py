"""Figure `mxfp4_interventions`: which remedy lowers the loss that FP4 costs.

A row for each arm, on batches that repeat. From left to right the loss on these batches against
the baseline's (what FP4 costs) and against that of the plain arm of the same GEMMs (what the
remedy wins back, left of zero), then the validation loss against the baseline's, as the arm
computes it and with unquantized weights. Above each mark its t statistic and n.
"""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from blockwise.figures import notes
from blockwise.figures.marks import Panel, Scale, Statistic, marks_of
from blockwise.figures.rows import Column, Mark, Sheet, draw_rows
from blockwise.figures.scales import plain

TABLE = "mxfp4_interventions"
DIFFERENCES = {
    "train_loss_over_baseline": "training loss\nless the\nbaseline's (nats)",
    "train_loss_over_reference": "training loss\nless the plain\narm's (nats)",
    "quantized_loss_over_baseline": "validation loss\nas trained, less\nbaseline's (nats)",
    "unquantized_loss_over_baseline": "unquantized\nvalidation loss, less\nbaseline's (nats)",
}
PANELS = tuple(
    Panel(name, label, Statistic.of(name, "_nats", num=f"{name}_num_seeds"), Scale.DIFFERENCE)
    for name, label in DIFFERENCES.items()
)
KEPT = (
    *notes.PAIR_LABELS,
    "num_steps",
    "num_repeated_batches",
    "num_final_steps",
    "reference_arm",
)
NO_PLAIN_ARM = "no other plain arm"


def plotted(table: pd.DataFrame) -> pd.DataFrame:
    """Exactly what is drawn: one row a mark; a baseline is not compared with itself."""
    compared = table[table["arm"] != table["baseline"]].reset_index(drop=True)
    marks = [
        marks_of(compared, [panel], KEPT).assign(
            t=compared[f"{panel.measure}_t"], verdict=compared[f"{panel.measure}_verdict"]
        )
        for panel in PANELS
    ]
    together = pd.concat(marks, ignore_index=True)
    is_plain = together["value"].isna() & together["reference_arm"].isna()
    is_plain &= together["measure"] == "train_loss_over_reference"
    return together.assign(omitted_reason=together["omitted_reason"].mask(is_plain, NO_PLAIN_ARM))


def draw(table: pd.DataFrame) -> Figure:
    """The figure of the table `mxfp4_interventions`."""
    return draw_rows(plotted(table), SHEET)


def _title(own: pd.DataFrame) -> str:
    first = own.iloc[0]
    data = "new text every step"
    if not pd.isna(first["num_repeated_batches"]):
        data = f"{first['num_repeated_batches']} batches that repeat"
    return f"against {first['baseline']}: {first['num_steps']} steps, {data}"


def _words(row: Mark) -> Iterator[str]:
    """The t statistic of one mark and what it is over, or why there is no mark."""
    if not pd.isna(row["value"]):
        t = "" if pd.isna(row["t"]) else f"t = {plain(row['t'], '.1f')}, "
        yield f"{t}n = {row['num']}"
        if row["verdict"] == "not powered":
            yield str(row["verdict"])
    if row["num_diverged"]:
        yield f"{row['num_diverged']} of {row['num_seeds']} diverged"
    elif pd.isna(row["value"]):
        yield "no run to compare" if pd.isna(row["omitted_reason"]) else row["omitted_reason"]


def _notes(marks: pd.DataFrame) -> Iterator[str]:
    yield from notes.training_captions(marks)
    steps = notes.count_words(marks["num_final_steps"].astype(int))
    yield (
        "Marks: means of differences paired by seed, over n seeds; training loss: mean of the last "
        f"{steps} steps, one pass over the batches that repeat."
    )
    yield from notes.bars(marks)
    if (marks["verdict"] == "not powered").any():
        yield "Not powered: the interval includes zero, or there are too few seeds for one."
    references = marks["reference_arm"].dropna().unique()
    if len(references):
        yield f"Plain arm: {' or '.join(references)}, the same GEMMs without a remedy."


SHEET = Sheet(
    columns=[Column((panel.measure,), panel.label, panel.scale) for panel in PANELS],
    by="measure",
    nothing="no training run beside a baseline",
    title_of=_title,
    notes_of=_notes,
    words_of=_words,
    band=("experiment", "baseline"),
)
