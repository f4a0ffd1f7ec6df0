"""Hadamard rotations along the dimension that a GEMM sums over.

An orthogonal matrix applied to both operands cancels in their product, and in between it
spreads an outlier over its group. The matrix is block-diagonal: each run of `size` values along
the contraction is rotated by the Hadamard matrix divided by sqrt(size), after multiplication
with signs where the rotation is random. Both operands must take the same signs.
"""

import math
from functools import cache

import torch
from torch import Tensor


def rotate(values: Tensor, axis: int, size: int, signs: Tensor | None = None) -> Tensor:
    """Rotate a matrix along one of its dimensions.

    Args:
        values: matrix whose dimension `axis` is a multiple of `size`.
        axis: 0 or 1.
        size: 16 or 32, or any other power of two.
        signs: 1 or -1, shape [size]; None for the deterministic rotation.

    Returns:
        A matrix of the same shape and type.
    """
    num_rows, num_columns = values.shape
    matrix: Tensor = _matrix(size, values.dtype, values.device)
    if signs is not None:
        matrix = signs.to(values.dtype)[:, None] * matrix
    if axis == 1:
        return (values.reshape(-1, size) @ matrix).view(num_rows, num_columns)
    runs = values.reshape(num_rows // size, size, num_columns)
    return torch.matmul(matrix.T, runs).view(num_rows, num_columns)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # torch has no types
def _matrix(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrix of a compiled graph is a constant: the compiler need not look into the cache."""
    return _cached_matrix(size, dtype, device)


@cache
def _cached_matrix(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Sylvester's Hadamard matrix over sqrt(size): symmetric and orthogonal."""
    with torch.inference_mode(False):  # the first caller may infer, and the next one train
        matrix = torch.ones(1, 1, dtype=torch.float64)
        while len(matrix) < size:
            matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
        return (matrix / math.sqrt(size)).to(dtype=dtype, device=device)
