"""`data_dictionary.csv`: every column of every table: unit, kind and meaning."""

from collections.abc import Mapping, Sequence

import pandas as pd

from blockwise.tables.columns import Column, frame, text

TABLE_NAME = "data_dictionary"

COLUMNS: tuple[Column, ...] = (
    text("table", "Table, without .csv."),
    text("column", "Column of that table."),
    text("unit", "Unit; 1 for ratios and shares, empty for text, flags and labels."),
    text(
        "kind",
        "exact: fixed by configuration, data and code; sampled: follows from decoded text; "
        "timed: a clock or the engine's schedule; host: machine, server start or checkout.",
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
