"""From a matrix to the MXFP4 numbers nearest to it, as ordinary floats ("emulated").

The matrix keeps its shape and type; its values become those that packed MXFP4 storage would
hold, so that an ordinary GEMM gives the products of an MXFP4 GEMM with float32 accumulation.
Both layouts of a GEMM are covered without a transposition: groups run along rows or columns.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from blockwise.config.recipes import GROUP_SIZE, GroupShape, Operand, Rounding
from blockwise.mxfp4 import noise
from blockwise.mxfp4.formats import (
    power_of_two,
    round_stochastically,
    round_to_nearest,
    scale_exponents,
)

PRESCALE = 0.75  # Tseng et al. 2502.20586: even's and floor's largest value, below 8, becomes <= 6


@dataclass(frozen=True)
class Quantized:
    """A matrix in groups, quantized but not scaled back.

    `elements` are E2M1 values in groups, `scaled` what was rounded to them. `exponents` (int32)
    and `scales` (float32) have one value a group and broadcast against the elements; the scale of
    a group that holds a NaN or an infinity is NaN.
    """

    elements: Tensor
    scaled: Tensor
    exponents: Tensor
    scales: Tensor


def quantize(values: Tensor, axis: int, operand: Operand, key: Tensor | None = None) -> Quantized:
    """Quantize a matrix in groups.

    Args:
        values: float matrix; the grouped dimensions are multiples of 32.
        axis: the dimension that the GEMM sums over, 0 or 1.
        operand: scale rule, rounding and groups.
        key: int32 key of the stochastic rounding; needed by it only.
    """
    grouped, group_axes = _grouped(values.to(torch.float32), axis, operand.groups)
    amax = grouped.abs().amax(group_axes, keepdim=True)
    exponents = scale_exponents(amax, operand.scale_rule)
    scaled = grouped * power_of_two(-exponents)
    if operand.rounding == Rounding.SR34:
        scaled = scaled * PRESCALE
    if operand.rounding == Rounding.RTNE:
        elements = round_to_nearest(scaled)
    else:
        assert key is not None, "stochastic rounding without a key"
        uniform = noise.uniform(key, scaled.numel()).view(scaled.shape)
        elements = round_stochastically(scaled, uniform)
    scales = torch.where(amax.isfinite(), power_of_two(exponents), torch.nan)
    return Quantized(elements, scaled, exponents, scales)


def fake_quantize(values: Tensor, axis: int, operand: Operand, key: Tensor | None = None) -> Tensor:
    """The matrix as MXFP4 would hold it; arguments of `quantize`.

    A group that holds a NaN or an infinity becomes NaN as a whole: E8M0 has no infinity, and
    its NaN is that of the scale. The 3/4 pre-scale stays in, as it does in storage: whoever
    multiplies divides the product by it (`product_factor`).
    """
    quantized = quantize(values, axis, operand, key)
    result = quantized.elements * quantized.scales
    return result.reshape(values.shape).to(values.dtype)


def product_factor(operands: Iterable[Operand | None]) -> float:
    """What a product of fake-quantized operands is multiplied by: 4/3 for each pre-scale."""
    num_prescaled = sum(o is not None and o.rounding == Rounding.SR34 for o in operands)
    return PRESCALE**-num_prescaled


def _grouped(values: Tensor, axis: int, groups: GroupShape) -> tuple[Tensor, tuple[int, ...]]:
    """The matrix with groups as dimensions of their own, and those dimensions."""
    num_rows, num_columns = values.shape
    if groups == GroupShape.SQUARE:
        shape = (num_rows // GROUP_SIZE, GROUP_SIZE, num_columns // GROUP_SIZE, GROUP_SIZE)
        return values.reshape(shape), (1, 3)
    if axis == 0:
        return values.reshape(num_rows // GROUP_SIZE, GROUP_SIZE, num_columns), (1,)
    return values.reshape(num_rows, num_columns // GROUP_SIZE, GROUP_SIZE), (2,)
