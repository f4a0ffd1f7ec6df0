"""Statistics that are formed inside each cluster and then averaged over clusters."""

import pandas as pd
from scipy.stats import linregress  # type: ignore[import-untyped]  # scipy ships no types

from blockwise.config.claim_metrics import DifferenceMetric, SlopeMetric
from blockwise.proportions import share_difference_interval, share_slope_interval
from blockwise.statistics import Interval

MIN_SLOPE_POINTS = 2


def slope_of(rows: pd.DataFrame, metric: SlopeMetric) -> Interval | None:
    """Mean slope over the clusters in which x takes two values or more; None: in none it does.

    Args:
        rows: with numbers in the metric's x and y.
        metric: the columns.

    Raises:
        ValueError: a column holds something else.
    """
    slopes = {}
    for cluster, members in rows.groupby(metric.cluster):
        x, y = members[metric.x].astype(float), members[metric.y].astype(float)
        if x.nunique() >= MIN_SLOPE_POINTS:
            slopes[str(cluster)] = float(linregress(x, y).slope) * metric.x_unit
    return share_slope_interval(slopes) if slopes else None


def difference_of(
    own: pd.DataFrame, reference: pd.DataFrame, metric: DifferenceMetric
) -> Interval | None:
    """Mean difference of two kinds of rows, pair by pair and then by cluster; None: no pair.

    Args:
        own: rows of one kind, with numbers in the metric's value.
        reference: rows of the other kind.
        metric: the columns.

    Raises:
        ValueError: a column holds something else.
    """
    differences = (_means(own, metric) - _means(reference, metric)).dropna()
    if not len(differences):
        return None
    clusters = [str(cluster) for cluster in differences.index.get_level_values(0)]
    return share_difference_interval(differences.tolist(), clusters)


def _means(rows: pd.DataFrame, metric: DifferenceMetric) -> "pd.Series[float]":
    """Mean by cluster and what pairs rows inside it."""
    return rows.groupby([metric.cluster, *metric.paired_by])[metric.value].mean().astype(float)
