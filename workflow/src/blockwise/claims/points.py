"""Points of a claim: the estimates of a run that its metric finds, each with its interval.

A point is one row of a table, or one group of rows whose clusters are averaged here. It keeps
the values that tell it apart, so that a reader finds the row behind it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from scipy.stats import linregress  # type: ignore[import-untyped]  # scipy ships no types

from blockwise.config.claims import (
    Claim,
    DifferenceMetric,
    EstimateMetric,
    Metric,
    SlopeMetric,
    Value,
)
from blockwise.errors import ConfigError
from blockwise.proportions import share_difference_interval
from blockwise.statistics import Interval, mean_interval

LABELS = (
    "experiment",
    "backbone",
    "dataset",
    "prompt",
    "arm",
    "block_size_tokens",
    "tau_tokens",
    "history_tokens",
    "num_bystanders",
    "baseline",
    "gemm",
    "step",
    "form",
)
"""Columns that tell the rows of a table apart, where it has them."""

COUNTED = ("num_clusters", "num_seeds", "num_rounds", "num_repeats")
MIN_SLOPE_POINTS = 2


@dataclass(frozen=True)
class Point:
    """One estimate.

    `low` and `high` are both `None` where no interval is given, and one of them where the
    interval is open there (tokens to a target that some seeds never reach).
    """

    where: str  # what tells it apart, as words
    value: float | None  # None: nothing was measured; a lower bound where the table has no mean
    low: float | None
    high: float | None
    num_clusters: int
    num_parameters: float
    note: str  # the table's own


def points_of(claim: Claim, tables: Mapping[str, pd.DataFrame]) -> list[Point]:
    """Every point that the claim's metric finds; none where the run has no such rows.

    Args:
        claim: one claim.
        tables: the run's tables by name; one that the run did not make is missing.

    Raises:
        ConfigError: the metric names a column that its table does not have, or that holds no
            numbers.
    """
    metric = claim.metric
    table = tables.get(metric.table)
    if table is None:
        return []
    try:
        return list(_points(_matching(table, metric.where, metric), metric))
    except (ValueError, TypeError, ArithmeticError, LookupError) as error:
        raise ConfigError(
            f"a claim's metric of the table {metric.table} cannot be computed ({error}): its "
            "columns must hold numbers, and what tells rows apart must be columns of their own; "
            "data_dictionary.csv lists them"
        ) from error


def _points(rows: pd.DataFrame, metric: Metric) -> Iterator[Point]:
    match metric:
        case EstimateMetric():
            return _estimates(rows, metric)
        case SlopeMetric():
            return _slopes(rows, metric)
        case DifferenceMetric():
            return _differences(rows, metric)


def _matching(
    rows: pd.DataFrame, where: Mapping[str, Value | Sequence[Value]], metric: Metric
) -> pd.DataFrame:
    for column, wanted in where.items():
        _require(rows, [column], metric)
        accepted = wanted if isinstance(wanted, list) else [wanted]
        rows = rows[rows[column].isin(accepted)]
    return rows


def _require(rows: pd.DataFrame, columns: Sequence[str], metric: Metric) -> None:
    missing = [column for column in columns if column not in rows.columns]
    if missing:
        raise ConfigError(
            f"the table {metric.table} has no column {', '.join(missing)}, which a claim names; "
            "its columns are in data_dictionary.csv"
        )


def _estimates(rows: pd.DataFrame, metric: EstimateMetric) -> Iterator[Point]:
    names = {
        statistic: f"{metric.name}_{statistic}{metric.suffix}"
        for statistic in ("mean", "median", "low", "high", "at_least")
    }
    value = next((names[one] for one in ("mean", "median") if names[one] in rows.columns), None)
    value = value or metric.name + metric.suffix
    names_of_counts = (*(f"{metric.name}_{one}" for one in COUNTED), *COUNTED)
    counted = [name for name in names_of_counts if name in rows.columns]
    _require(rows, [value], metric)
    for _, row in rows.iterrows():
        measured = _number(row[value])
        yield Point(
            where=_label(row),
            value=_number(row.get(names["at_least"])) if measured is None else measured,
            low=_number(row.get(names["low"])),
            high=_number(row.get(names["high"])),
            num_clusters=int(_number(row[counted[0]]) or 0) if counted else 0,
            num_parameters=_number(row.get("num_parameters")) or 0.0,
            note=_words(row.get("note")),
        )


def _slopes(rows: pd.DataFrame, metric: SlopeMetric) -> Iterator[Point]:
    _require(rows, [metric.x, metric.y, metric.cluster, *metric.by], metric)
    rows = rows.dropna(subset=[metric.x, metric.y])
    for _, own in rows.groupby(metric.by, sort=True, dropna=False):
        slopes = {}
        for cluster, members in own.groupby(metric.cluster):
            x, y = members[metric.x].astype(float), members[metric.y].astype(float)
            if x.nunique() >= MIN_SLOPE_POINTS:
                slopes[str(cluster)] = float(linregress(x, y).slope) * metric.x_unit
        if slopes:
            yield _over_clusters(own, mean_interval([*slopes.values()], [*slopes]), metric.by)


def _differences(rows: pd.DataFrame, metric: DifferenceMetric) -> Iterator[Point]:
    _require(rows, [metric.value, metric.cluster, *metric.paired_by, *metric.by], metric)
    rows = rows.dropna(subset=[metric.value])
    for _, group in rows.groupby(metric.by, sort=True, dropna=False):
        own, reference = (
            _means(_matching(group, where, metric), metric)
            for where in (metric.own, metric.reference)
        )
        differences = (own - reference).dropna()
        if len(differences):
            clusters = [str(cluster) for cluster in differences.index.get_level_values(0)]
            interval = share_difference_interval(differences.tolist(), clusters)
            yield _over_clusters(group, interval, metric.by)


def _means(rows: pd.DataFrame, metric: DifferenceMetric) -> "pd.Series[float]":
    """Mean by cluster and what pairs rows inside it."""
    return rows.groupby([metric.cluster, *metric.paired_by])[metric.value].mean().astype(float)


def _over_clusters(rows: pd.DataFrame, interval: Interval, by: Sequence[str]) -> Point:
    first = rows.iloc[0]
    return Point(
        where=", ".join(_words(first[column]) for column in by),
        value=interval.mean,
        low=interval.low,
        high=interval.high,
        num_clusters=interval.num_clusters,
        num_parameters=_number(first.get("num_parameters")) or 0.0,
        note="",
    )


def _label(row: "pd.Series[Any]") -> str:
    words = [f"{name}={_words(row[name])}" for name in LABELS if name in row and _words(row[name])]
    return ", ".join(words)


def _words(value: object) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(value: object) -> float | None:
    return float(value) if _words(value) else None  # type: ignore[arg-type]  # a cell of a number
