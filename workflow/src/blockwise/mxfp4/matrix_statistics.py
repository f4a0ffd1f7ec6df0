"""What a matrix is like that makes it hard to quantize: tails, means and outliers."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class MatrixStatistics:
    """Tails, means and outliers of one matrix.

    A share of the mean over rows is that of the squared values which remains when every row is
    replaced by the mean of all: 0 where columns average to zero, 1 where all rows are the same.
    An outlier is how many times the median size of a row (or column) the largest one has; sizes
    are root mean squares.
    """

    kurtosis: float
    mean_over_rows_frac: float
    mean_over_columns_frac: float
    row_outlier: float
    column_outlier: float


def matrix_statistics(values: Tensor) -> MatrixStatistics:
    """Statistics of a float32 matrix; one of zeros has no mean and no outlier: 0, 0 and 1."""
    return MatrixStatistics(
        kurtosis=kurtosis(values),
        mean_over_rows_frac=_mean_frac(values, 0),
        mean_over_columns_frac=_mean_frac(values, 1),
        row_outlier=_outlier(values, 1),
        column_outlier=_outlier(values, 0),
    )


def kurtosis(values: Tensor) -> float:
    """Fourth moment over the squared second, about the mean: 3 for a normal distribution.

    Equal values have none; they count as 0, below every distribution's 1.
    """
    centred = values - values.mean()
    deviation = float(centred.square().mean().sqrt())
    return float((centred / deviation).pow(4).mean()) if deviation else 0.0


def _mean_frac(values: Tensor, over: int) -> float:
    total = float(values.square().sum())
    of_mean = values.shape[over] * float(values.mean(over).square().sum())
    return of_mean / total if total else 0.0


def _outlier(values: Tensor, over: int) -> float:
    sizes = values.square().mean(over).sqrt()
    median = float(torch.quantile(sizes, 0.5))
    return float(sizes.max()) / median if median else 1.0
