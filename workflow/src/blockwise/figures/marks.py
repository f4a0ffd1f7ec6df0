"""Marks: the tidy form in which every figure holds what it draws.

A table has a row an arm and a column a statistic; a drawing has a mark a value. `marks_of`
turns the one into the other and changes no number: a mark is a value of the table, its bar is
the interval where the table has one and the range where it has not, and a value that is
absent keeps its reason. The marks are what is written beside each figure as CSV.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pandas as pd


class Bar(StrEnum):
    """What the bar of a mark reaches over."""

    INTERVAL = "95% interval"
    RANGE = "minimum to maximum"
    TO_P95 = "median to 95th percentile"
    TO_MAXIMUM = "median to maximum"
    QUARTILES = "lower to upper quartile"
    AT_LEAST = "at least"  # the value is a lower bound


CAPPED = frozenset({Bar.INTERVAL, Bar.TO_P95})
BAR_WORDS = {
    Bar.INTERVAL: "capped bars: 95% interval",
    Bar.RANGE: "plain bars: minimum to maximum",
    Bar.QUARTILES: "plain bars: lower to upper quartile",
    Bar.TO_P95: "capped bars from a median up: to the 95th percentile",
    Bar.TO_MAXIMUM: "plain bars from a median up: to the maximum, of fewer than 20 values",
}


class Scale(StrEnum):
    """How the axis of a panel is laid out."""

    AMOUNT = "amount"  # from zero
    COUNT = "count"  # from zero, ticks at whole numbers
    TOKENS = "tokens"  # from zero, ticks in thousands
    RATIO = "ratio"  # around one
    DIFFERENCE = "difference"  # around zero
    LOG = "log"  # ticks at 1, 2, 5, 10
    LOG2 = "log2"  # ticks at powers of two, as token lengths have them
    SIGNED_LOG = "signed log"  # logarithmic to both sides of a linear middle
    NEAR_ONE = "near one"  # logarithmic in the distance from one: 0, 0.9, 0.99


@dataclass(frozen=True)
class Statistic:
    """Columns of a table that hold a value and what surrounds it; None: it has none."""

    value: str
    num: str | None = None
    low: str | None = None
    high: str | None = None
    minimum: str | None = None  # the bar where low or high is absent
    maximum: str | None = None
    beyond: str | None = None  # a value further out, e.g. a 99th percentile
    bar: Bar = Bar.INTERVAL  # what low and high are
    fallback: Bar = Bar.RANGE  # what minimum and maximum are

    @classmethod
    def of(
        cls,
        measure: str,
        suffix: str = "",
        *,
        has_interval: bool = True,
        num: str | None = None,
    ) -> "Statistic":
        """The columns of a measure over clusters: its mean, interval if any, and range.

        Args:
            measure: first words of the columns.
            suffix: their last, the unit.
            has_interval: whether the table has one beside the range.
            num: column of the number of what the statistic is over; by default of clusters.
        """
        names = {name: f"{measure}_{name}{suffix}" for name in ("low", "high", "min", "max")}
        return cls(
            value=f"{measure}_mean{suffix}",
            num=num or f"{measure}_num_clusters",
            low=names["low"] if has_interval else None,
            high=names["high"] if has_interval else None,
            minimum=names["min"],
            maximum=names["max"],
        )

    @classmethod
    def percentiles(
        cls, latency: str, of_what: str = "requests", *, has_p99: bool = True
    ) -> "Statistic":
        """The columns of a latency: median, 95th percentile or maximum, 99th percentile.

        Args:
            latency: first word of the columns.
            of_what: what has it.
            has_p99: whether the table has one.
        """
        names = ("p50", "p95", "max", "p99")
        p50, p95, longest, p99 = (f"{latency}_{name}_s" for name in names)
        return cls(
            value=p50,
            num=f"{latency}_num_{of_what}",
            low=p50,
            high=p95,
            minimum=p50,
            maximum=longest,
            beyond=p99 if has_p99 else None,
            bar=Bar.TO_P95,
            fallback=Bar.TO_MAXIMUM,
        )


@dataclass(frozen=True)
class Panel:
    """One row of panels: a measure of the table."""

    measure: str
    label: str
    statistic: Statistic
    scale: Scale = Scale.AMOUNT
    reason: str | None = None  # column that says why a value is absent


MARK = ("measure", "value", "low", "high", "bar", "beyond", "num", "omitted_reason", "level")
"""Columns of a mark beside those that say what it is of; `level` names a line to hold it against,
which is drawn instead of a mark."""

WORDS = ("bar", "omitted_reason", "level")


def marks_of(table: pd.DataFrame, panels: Sequence[Panel], kept: Iterable[str]) -> pd.DataFrame:
    """One mark a row and panel, with the columns of the table that say what it is of.

    Raises:
        KeyError: the table lacks a column.
    """
    names = list(kept)
    rows: list[dict[Any, Any]] = [
        {**{name: row[name] for name in names}, **_mark(row, panel)}
        for row in table.to_dict("records")
        for panel in panels
    ]
    return _typed(pd.DataFrame(rows, columns=[*names, *MARK]), table)


def levels_of(marks: pd.DataFrame, level: str, values: Iterable[float]) -> pd.DataFrame:
    """Lines to hold marks against: these marks at other values, without bars."""
    absent = dict.fromkeys(("low", "high", "bar", "beyond", "num", "omitted_reason"))
    levels = marks.assign(value=list(values), **absent, level=level)
    return levels.astype(marks.dtypes.to_dict())


def _typed(marks: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The same marks, each column in the type that the table gives it."""
    types: dict[str, Any] = {str(name): table[name].dtype for name in marks if name in table}
    types |= dict.fromkeys(("value", "low", "high", "beyond"), "float64")
    return marks.astype({**types, "num": "Int64", **dict.fromkeys(WORDS, "str")})


def _mark(row: Mapping[Any, Any], panel: Panel) -> dict[str, Any]:
    statistic = panel.statistic
    value = _known(row, statistic.value)
    low, high = _known(row, statistic.low), _known(row, statistic.high)
    bar = statistic.bar
    if statistic.minimum is not None and (low is None or high is None):
        low, high = _known(row, statistic.minimum), _known(row, statistic.maximum)
        bar = statistic.fallback
    has_bar = value is not None and (low is not None or high is not None)  # it may have one end
    return {
        "measure": panel.measure,
        "value": value,
        "low": low if has_bar else None,
        "high": high if has_bar else None,
        "bar": bar.value if has_bar else None,
        "beyond": _known(row, statistic.beyond),
        "num": _known(row, statistic.num),
        "omitted_reason": _known(row, panel.reason) if value is None else None,
        "level": None,
    }


def _known(row: Mapping[Any, Any], column: str | None) -> Any:
    """A value of the row; None where it is absent or there is no such column."""
    if column is None or pd.isna(row[column]):
        return None
    return row[column]
