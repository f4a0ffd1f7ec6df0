"""Points of a claim: the estimates of a run that its metric finds, each with its interval.

A point is one row of a table, rows that repeat one estimate, or a group of rows whose clusters
are averaged here. It keeps the values that tell it apart, so that a reader finds the row behind
it, the scale that it holds for, and the gate of its rows. A row whose arm realises the history
blocks of another arm is that arm a second time, and no point.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from blockwise.claims.cells import number_in, words_in
from blockwise.claims.scale import Scale, scale_of
from blockwise.claims.within_clusters import difference_of, slope_of
from blockwise.config.claim_metrics import (
    DifferenceMetric,
    EstimateMetric,
    Metric,
    SlopeMetric,
    Where,
)
from blockwise.config.claims import Claim
from blockwise.errors import ConfigError
from blockwise.statistics import Interval
from blockwise.tables.compaction.parts.gates import PRECEDENCE, Gate, gate_of

LABELS = (
    "experiment",
    "backbone",
    "dataset",
    "prompt",
    "arm",
    "block_size_tokens",
    "tau_tokens",
    "history_tokens",
    "answer_tokens",
    "mode",
    "open_block",
    "max_background_workers",
    "worker_priority",
    "tool_wait_s",
    "num_history_blocks",
    "num_bystanders",
    "phase",
    "baseline",
    "quantity",
    "reference",
    "measure",
    "gemm",
    "step",
    "form",
    "baseline_form",
)
"""Columns that tell the rows of a table apart, where it has them."""

COUNTED = ("num_clusters", "num_seeds", "num_rounds", "num_repeats")
SAME_TRAINING = ("experiment", "baseline", "measure")
"""Columns in which the rows of one training agree with the row that has its null arm."""


@dataclass(frozen=True)
class Point:
    """One estimate.

    `low` and `high` are both `None` where no interval is given, and one of them where the
    interval is open there (tokens to a target that some seeds never reach).
    """

    where: str  # what tells it apart, as words
    scale: Scale
    value: float | None  # None: nothing was measured; a lower bound where the table has no mean
    low: float | None
    high: float | None
    num_clusters: int
    gate: Gate
    null: tuple[float, float] | None  # 95% interval of the null arm in the same measure
    floor: float | None  # the same difference with the last tokens in place of the arm
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
        return list(_points(_rows_of(table, metric), metric, tables))
    except (ValueError, TypeError, ArithmeticError, LookupError) as error:
        raise ConfigError(
            f"a claim's metric of the table {metric.table} cannot be computed ({error}): its "
            "columns must hold numbers, and what tells rows apart must be columns of their own; "
            "data_dictionary.csv lists them"
        ) from error


def _rows_of(table: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """The rows that the metric selects."""
    rows = _own_arms(_matching(table, metric.where, metric), metric)
    _require(rows, [*metric.at_most, *metric.without], metric)
    for column, most in metric.at_most.items():
        rows = rows[rows[column].astype(float) <= most]
    for column, words in metric.without.items():
        rows = rows[~rows[column].map(words_in).astype(str).str.contains(words, regex=False)]
    return rows


def _points(
    rows: pd.DataFrame, metric: Metric, tables: Mapping[str, pd.DataFrame]
) -> Iterator[Point]:
    match metric:
        case EstimateMetric():
            return _estimates(rows, metric, tables)
        case SlopeMetric():
            return _slopes(rows, metric, tables)
        case DifferenceMetric():
            return _differences(rows, metric, tables)


def _matching(rows: pd.DataFrame, where: Where, metric: Metric) -> pd.DataFrame:
    for column, wanted in where.items():
        _require(rows, [column], metric)
        accepted = wanted if isinstance(wanted, list) else [wanted]
        rows = rows[rows[column].isin(accepted)]
    return rows


def _own_arms(rows: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Rows of arms whose history blocks are their own."""
    if "same_blocks_as" in rows.columns:
        rows = rows[rows["same_blocks_as"].isna()]
    if metric.gate in rows.columns:
        rows = rows[rows[metric.gate].astype(object) != Gate.SAME_BLOCKS_AS.value]
    return rows


def _require(rows: pd.DataFrame, columns: Sequence[str], metric: Metric) -> None:
    missing = [column for column in columns if column not in rows.columns]
    if missing:
        raise ConfigError(
            f"the table {metric.table} has no column {', '.join(missing)}, which a claim names; "
            "its columns are in data_dictionary.csv"
        )


def _estimates(
    rows: pd.DataFrame, metric: EstimateMetric, tables: Mapping[str, pd.DataFrame]
) -> Iterator[Point]:
    names = {
        statistic: f"{metric.name}_{statistic}{metric.suffix}"
        for statistic in ("mean", "median", "low", "high", "at_least")
    }
    value = next((names[one] for one in ("mean", "median") if names[one] in rows.columns), None)
    value = value or metric.name + metric.suffix
    names_of_counts = (*(f"{metric.name}_{one}" for one in COUNTED), *COUNTED)
    counted = [name for name in names_of_counts if name in rows.columns]
    _require(rows, [value, *metric.by], metric)
    for group in _groups(rows, metric.by):
        row = group.iloc[0]
        measured = number_in(row[value])
        yield Point(
            where=_by_words(row, metric.by) if metric.by else _label(row),
            scale=scale_of(group, tables),
            value=number_in(row.get(names["at_least"])) if measured is None else measured,
            low=number_in(row.get(names["low"])),
            high=number_in(row.get(names["high"])),
            num_clusters=int(number_in(row[counted[0]]) or 0) if counted else 0,
            gate=_gate(group, metric),
            null=_null(row, tables[metric.table], metric),
            floor=None,
            note=_note(row),
        )


def _note(row: "pd.Series[Any]") -> str:
    """The table's own note, or that some seeds of a training are censored."""
    num_censored = int(number_in(row.get("num_censored")) or 0)
    if num_censored:
        return f"{num_censored} trainings do not reach the target; mxfp4_ladder bounds them"
    return words_in(row.get("note"))


def _groups(rows: pd.DataFrame, by: Sequence[str]) -> Iterator[pd.DataFrame]:
    """Rows that repeat one estimate; without columns each row is alone."""
    if by:
        yield from (group for _, group in rows.groupby([*by], sort=False, dropna=False))
    else:
        yield from (rows.iloc[[place]] for place in range(len(rows)))


def _slopes(
    rows: pd.DataFrame, metric: SlopeMetric, tables: Mapping[str, pd.DataFrame]
) -> Iterator[Point]:
    _require(rows, [metric.x, metric.y, metric.cluster, *metric.by], metric)
    rows = rows.dropna(subset=[metric.x, metric.y])
    for _, own in rows.groupby(metric.by, sort=True, dropna=False):
        interval = slope_of(own, metric)
        if interval is not None:
            yield _over_clusters(own, interval, metric, tables)


def _differences(
    rows: pd.DataFrame, metric: DifferenceMetric, tables: Mapping[str, pd.DataFrame]
) -> Iterator[Point]:
    _require(rows, [metric.value, metric.cluster, *metric.paired_by, *metric.by], metric)
    rows = rows.dropna(subset=[metric.value])
    for _, group in rows.groupby(metric.by, sort=True, dropna=False):
        own, reference = (
            _matching(group, where, metric) for where in (metric.own, metric.reference)
        )
        interval = difference_of(own, reference, metric)
        if interval is not None:
            point = _over_clusters(pd.concat([own, reference]), interval, metric, tables)
            yield replace(point, floor=_floor(group, reference, metric))


def _floor(group: pd.DataFrame, reference: pd.DataFrame, metric: DifferenceMetric) -> float | None:
    """What the last tokens give in place of the metric's own rows; None: it names none."""
    if not metric.floor:
        return None
    interval = difference_of(_matching(group, metric.floor, metric), reference, metric)
    return interval.mean if interval else None


def _over_clusters(
    rows: pd.DataFrame,
    interval: Interval,
    metric: SlopeMetric | DifferenceMetric,
    tables: Mapping[str, pd.DataFrame],
) -> Point:
    return Point(
        where=_by_words(rows.iloc[0], metric.by),
        scale=scale_of(rows, tables),
        value=interval.mean,
        low=interval.low,
        high=interval.high,
        num_clusters=interval.num_clusters,
        gate=_gate(rows, metric),
        null=None,
        floor=None,
        note="",
    )


def _gate(rows: pd.DataFrame, metric: Metric) -> Gate:
    """The gate of rows that make one point: one that is closed closes it."""
    if metric.gate not in rows.columns:
        return Gate.OK
    found = {words_in(value) for value in rows[metric.gate]}
    return gate_of({gate for gate in PRECEDENCE if gate.value in found})


def _null(
    row: "pd.Series[Any]", table: pd.DataFrame, metric: EstimateMetric
) -> tuple[float, float] | None:
    """Interval of the null arm beside a row, or else beside others of the same training."""
    ends = [f"{metric.null}_{end}{metric.suffix}" for end in ("low", "high")]
    if not metric.null:
        return None
    _require(table, ends, metric)
    for name in SAME_TRAINING:
        if name in table.columns:
            table = table[table[name].astype(object) == row[name]]
    known = table.dropna(subset=ends)
    if known.empty:
        return None
    low, high = (float(known.iloc[0][end]) for end in ends)
    return low, high


def _label(row: "pd.Series[Any]") -> str:
    return _by_words(row, [name for name in LABELS if name in row])


def _by_words(row: "pd.Series[Any]", by: Sequence[str]) -> str:
    told = {name: words_in(row[name]) for name in by}
    return ", ".join(f"{name}={words}" for name, words in told.items() if words)
