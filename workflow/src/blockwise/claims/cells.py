"""What a cell of a CSV table holds: a number or none, and how it reads in words."""

import math

import pandas as pd


def words_in(value: object) -> str:
    """The value in words; empty where the cell is."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def number_in(value: object) -> float | None:
    """The number; None where the cell is empty.

    Raises:
        ValueError: it holds something else.
    """
    return float(value) if words_in(value) else None  # type: ignore[arg-type]  # a cell of a number
