"""`data_dictionary.csv`: every column of every table: unit, kind and meaning.

    python -m blockwise.report.data_dictionary --families compaction mxfp4 --output FILE

It follows from the code alone, so it needs no table to be there.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from blockwise.artifacts import write_bytes
from blockwise.claims import ledger
from blockwise.errors import run_command
from blockwise.tables.columns import Column, csv_bytes, frame, text
from blockwise.tables.registry import Family, load_tables

TABLE_NAME = "data_dictionary"

COLUMNS: tuple[Column, ...] = (
    text("table", "Table, without .csv."),
    text("column", "Column of that table."),
    text("unit", "Unit; 1 for ratios and shares, empty for text, flags and labels."),
    text(
        "kind",
        "exact: fixed by configuration, data and code; sampled: follows from decoded text, or "
        "from the floating-point arithmetic of training, which is that of the processor; timed: a "
        "clock or the engine's schedule; host: machine, server start or checkout.",
    ),
    text("meaning", "What it says."),
)


def build(tables: Mapping[str, Sequence[Column]]) -> pd.DataFrame:
    """One row a column, for the given tables and for the dictionary itself."""
    rows = [
        {
            "table": table,
            "column": column.name,
            "unit": column.unit,
            "kind": column.kind.value,
            "meaning": column.meaning,
        }
        for table, columns in {**tables, TABLE_NAME: COLUMNS}.items()
        for column in columns
    ]
    return frame(rows, COLUMNS)


def write_dictionary(families: Sequence[Family], path: Path) -> None:
    """Write the dictionary of some families of tables, and of the ledger, as CSV."""
    tables = {name: module.COLUMNS for name, module in load_tables(*families).items()}
    write_bytes(path, csv_bytes(build({**tables, **ledger.TABLES})))


def main() -> None:
    """Command line: families of tables, and a path."""
    parser = argparse.ArgumentParser(
        prog="python -m blockwise.report.data_dictionary", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--families", type=Family, nargs="+", choices=list(Family), required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    write_dictionary(arguments.families, arguments.output)


if __name__ == "__main__":
    run_command(main)
