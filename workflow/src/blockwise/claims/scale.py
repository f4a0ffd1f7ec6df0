"""Scale: which model, window and data a point is of, and what a run reaches at all.

A verdict holds for the scale that it was measured at, so each names it in words. What a run
reaches tells two things apart where it has no row for a claim: it was not measured, or no run at
this scale could tell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from blockwise.claims.cells import number_in, words_in

WINDOWS = {
    "tau_tokens": "sessions up to",
    "history_tokens": "histories of",
    "sequence_tokens": "sequences of",
}
"""Columns that say how long a text was, with the words before the number."""

ENGINES = "engine_cards"  # the table of what each backbone's window holds


@dataclass(frozen=True)
class Scale:
    """What one point was measured on."""

    backbone: str  # empty: a training, whose caption names it
    num_parameters: float
    window_tokens: float  # the longest; 0: no column tells
    window: str
    data: str

    @property
    def model(self) -> str:
        """The model and its size in words."""
        size = f"{self.num_parameters:.3g} parameters"
        return f"{self.backbone}, {size}" if self.backbone else size


@dataclass(frozen=True)
class Reach:
    """The most that a run has of what a claim may need; zero: it has no such model."""

    num_parameters: float
    window_tokens: float


def scale_of(rows: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> Scale:
    """The scale of rows that make one point.

    Args:
        rows: one or more rows of one model.
        tables: the run's tables by name; the length of a training's sequences stands in another
            table than its claims.
    """
    first = rows.iloc[0]
    lengths = _lengths(rows, tables)
    tokens = [value for values in lengths.values() for value in values]
    return Scale(
        backbone=words_in(first.get("backbone")),
        num_parameters=number_in(first.get("num_parameters")) or 0.0,
        window_tokens=max(tokens, default=0.0),
        window=", ".join(
            f"{WINDOWS[column]} {_range_words(values)} tokens" for column, values in lengths.items()
        ),
        data=_texts(rows, "dataset") or _texts(rows, "caption"),
    )


def reach_of(table: str, tables: Mapping[str, pd.DataFrame]) -> Reach:
    """What the models of a run reach, in the study that a table belongs to.

    Args:
        table: name of a table, whose first word is that of its study.
        tables: the run's tables by name.
    """
    study = table.partition("_")[0]
    own = [rows for name, rows in tables.items() if name.partition("_")[0] == study]
    engines = [tables[name] for name in (ENGINES,) if study == "compaction" and name in tables]
    return Reach(
        num_parameters=_largest(own, ["num_parameters"]),
        window_tokens=_largest([*own, *engines], [*WINDOWS, "context_window_tokens"]),
    )


def _lengths(rows: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> dict[str, list[float]]:
    """Lengths of the rows by column, sorted, each once."""
    found = {column: _numbers(rows, column) for column in WINDOWS}
    runs = tables.get("mxfp4_runs")
    if "backbone" not in rows.columns and "experiment" in rows.columns and runs is not None:
        trained = runs[runs["experiment"].isin(rows["experiment"])]
        found["sequence_tokens"] = _numbers(trained, "sequence_tokens")
    return {column: values for column, values in found.items() if values}


def _numbers(rows: pd.DataFrame, column: str) -> list[float]:
    if column not in rows.columns:
        return []
    return sorted({float(value) for value in rows[column].dropna()})


def _largest(tables: Sequence[pd.DataFrame], columns: Sequence[str]) -> float:
    values = [one for rows in tables for name in columns for one in _numbers(rows, name)]
    return max(values, default=0.0)


def _range_words(values: Sequence[float]) -> str:
    least, most = values[0], values[-1]
    return f"{least:.0f}" if least == most else f"{least:.0f} to {most:.0f}"


def _texts(rows: pd.DataFrame, column: str) -> str:
    if column not in rows.columns:
        return ""
    found: dict[Any, None] = dict.fromkeys(words_in(value) for value in rows[column])
    return ", ".join(one for one in found if one)
