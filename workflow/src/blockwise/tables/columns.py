"""What a table is made of: columns that carry their unit, kind and meaning.

A table module lists its columns once; the data frame, the CSV and the data dictionary all
come from that list, so none can drift from the others. The CSV bytes depend on the rows
alone: fixed order, fixed float format, no time of writing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pandas as pd

FLOAT_FORMAT = "%.9g"  # microseconds of a run of minutes; hides the last bits of a sum


class ColumnKind(StrEnum):
    """What a rerun of the same cell may change (METHOD, Statistics)."""

    EXACT = "exact"  # fixed by configuration, data and code
    SAMPLED = "sampled"  # follows from decoded text, or from the float arithmetic of training
    TIMED = "timed"  # a clock, or the engine's schedule
    HOST = "host"  # the machine, the start of the server, the state of the checkout


class ColumnType(StrEnum):
    """Type of a column's values; any of them may be absent."""

    TEXT = "str"
    INTEGER = "Int64"
    NUMBER = "Float64"
    FLAG = "boolean"


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    type: ColumnType
    unit: str  # "" for text and flags, "1" for ratios and shares
    kind: ColumnKind
    meaning: str


def text(name: str, meaning: str, kind: ColumnKind = ColumnKind.EXACT) -> Column:
    """A column of words."""
    return Column(name, ColumnType.TEXT, "", kind, meaning)


def flag(name: str, meaning: str, kind: ColumnKind = ColumnKind.EXACT) -> Column:
    """A column of true and false."""
    return Column(name, ColumnType.FLAG, "", kind, meaning)


def count(
    name: str, meaning: str, kind: ColumnKind = ColumnKind.EXACT, unit: str = "count"
) -> Column:
    """A column of whole numbers."""
    return Column(name, ColumnType.INTEGER, unit, kind, meaning)


def tokens(name: str, meaning: str, kind: ColumnKind = ColumnKind.EXACT) -> Column:
    """A column of token counts."""
    return count(name, meaning, kind, unit="tokens")


def number(name: str, meaning: str, kind: ColumnKind, unit: str) -> Column:
    """A column of real numbers."""
    return Column(name, ColumnType.NUMBER, unit, kind, meaning)


def seconds(name: str, meaning: str, kind: ColumnKind = ColumnKind.TIMED) -> Column:
    """A column of times."""
    return number(name, meaning, kind, "s")


def frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> pd.DataFrame:
    """Rows as a data frame with exactly these columns, in this order; `None` is absent."""
    names = [column.name for column in columns]
    for row in rows:
        assert row.keys() == set(names), sorted(row.keys() ^ set(names))  # a defect of ours
    data = {
        column.name: pd.array([row[column.name] for row in rows], dtype=column.type.value)
        for column in columns
    }
    return pd.DataFrame(data, columns=names)


def csv_bytes(table: pd.DataFrame) -> bytes:
    """The one CSV form of a table: equal tables give equal bytes, absent values are empty."""
    words = table.copy()
    for name, values in table.items():
        if pd.api.types.is_bool_dtype(values.dtype):
            words[name] = values.map({True: "true", False: "false"})
    content = words.to_csv(index=False, float_format=FLOAT_FORMAT, lineterminator="\n", na_rep="")
    return content.encode()
