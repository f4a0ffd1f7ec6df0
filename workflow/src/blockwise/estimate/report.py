"""The bill on a terminal, and as a file of one row a stage and experiment."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from blockwise.artifacts import write_bytes, write_model
from blockwise.estimate.bill import BYSTANDERS, Bill, Line, summed

LINE_CHARS = 140
NUM_LABELS = 3  # the first columns are words
COLUMNS = ("stage", "backbone", "dataset", "cells", "requests", "steps", "prompt tokens",
           "computed", "decoded", "wall h", "GPU h", "CPU h", "disk GB")  # fmt: skip


def print_bill(bill: Bill, console: Console | None = None) -> None:
    """A row a stage, backbone and dataset; then disk, assumptions and what does not fit.

    What bystanders ask during compactions stands below the total, which it is no part of.
    """
    console = console or Console(width=LINE_CHARS)
    table = Table(title=f"estimate of profile {bill.profile}", padding=(0, 0))
    for number, name in enumerate(COLUMNS):
        is_label = number < NUM_LABELS
        table.add_column(name, no_wrap=is_label, justify="left" if is_label else "right")
    apart = [line for line in bill.lines if line.stage == BYSTANDERS]
    counted = [line for line in bill.lines if line.stage != BYSTANDERS]
    _add_rows(table, counted)
    if counted:
        table.add_section()
        table.add_row("total", "", "", *_numbers(summed(counted)))
        table.add_section()
    _add_rows(table, apart)
    console.print(table)
    kept = Table("kept on disk", "GB", "from", padding=(0, 1))
    for one in bill.disk:
        kept.add_row(one.what, f"{one.disk_gb:.3g}", one.source)
    console.print(kept)
    for title, texts in (
        ("assumptions (~: estimated)", bill.assumptions),
        ("does not fit", bill.warnings),
    ):
        if texts:
            console.print(f"{title}:", style="bold")
            for text in texts:
                console.print(f"  - {text}", highlight=False, markup=False)


def _add_rows(table: Table, lines: Sequence[Line]) -> None:
    groups: dict[tuple[str, str, str], list[Line]] = {}
    for line in lines:
        what = line.dataset or line.experiment
        groups.setdefault((line.stage, line.backbone, what), []).append(line)
    for (stage, backbone, what), group in groups.items():
        table.add_row(stage, backbone, what, *_numbers(summed(group)))


def _numbers(line: Line) -> list[str]:
    mark = "~" if line.is_estimated else ""
    requests = f"{mark}{line.num_requests:,}" if line.num_requests else ""
    counts = (line.prompt_tokens, line.uncached_tokens, line.decoded_tokens or line.train_tokens)
    return [
        f"{line.num_cells:,}" if line.num_cells else "",
        requests,
        f"{line.num_steps:,}" if line.num_steps else "",
        *(f"{mark}{_short(value)}" if value else "" for value in counts),
        *(_hours(value) if value else "" for value in (line.wall_h, line.gpu_h, line.cpu_h)),
        f"{line.disk_gb:.2g}" if line.disk_gb else "",
    ]


def _hours(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _short(value: float) -> str:
    for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{letter}"
    return str(round(value))


def write_bill(bill: Bill, json_path: Path | None, csv_path: Path | None) -> None:
    """The whole bill as JSON; its lines as CSV."""
    if json_path is not None:
        write_model(json_path, bill)
    if csv_path is not None:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(Line.model_fields), lineterminator="\n")
        writer.writeheader()
        writer.writerows(line.model_dump() for line in bill.lines)
        write_bytes(csv_path, text.getvalue().encode())
