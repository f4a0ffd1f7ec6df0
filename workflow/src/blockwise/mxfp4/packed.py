"""Packed MXFP4: two elements a byte and a byte a scale, as hardware GEMMs take them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from blockwise.config.recipes import GROUP_SIZE, GroupShape, Operand
from blockwise.mxfp4.formats import (
    E2M1_VALUES,
    E8M0_BIAS,
    E8M0_NAN,
    power_of_two,
)
from blockwise.mxfp4.quantize import quantize

SIGN_BIT = 8


@dataclass(frozen=True)
class Packed:
    """A matrix in MXFP4, groups along its rows.

    `elements`: float4_e2m1fn_x2 of shape [rows, columns / 2], the even column in the low half
    of each byte. `scales`: float8_e8m0fnu of shape [rows, columns / 32].
    """

    elements: Tensor
    scales: Tensor


def pack(values: Tensor, operand: Operand, key: Tensor | None = None) -> Packed:
    """Quantize a matrix along its rows and pack it; a 3/4 pre-scale stays in."""
    num_rows, num_columns = values.shape
    quantized = quantize(values, 1, operand, key)
    shape = (num_rows, num_columns // GROUP_SIZE)
    exponents = torch.where(quantized.scales.isnan(), E8M0_NAN - E8M0_BIAS, quantized.exponents)
    if operand.groups == GroupShape.SQUARE:  # one scale for 32 rows: each of them gets it
        exponents = exponents.expand(num_rows // GROUP_SIZE, GROUP_SIZE, shape[1], 1)
    scales = (exponents + E8M0_BIAS).reshape(shape)
    codes = _codes(quantized.elements).reshape(num_rows, num_columns)
    pairs = codes[:, 0::2] | torch.bitwise_left_shift(codes[:, 1::2], 4)
    return Packed(
        pairs.contiguous().view(torch.float4_e2m1fn_x2),
        scales.to(torch.uint8).contiguous().view(torch.float8_e8m0fnu),
    )


def unpack(packed: Packed) -> Tensor:
    """The matrix as float32; NaN where the scale is NaN."""
    pairs = packed.elements.view(torch.uint8)
    halves = [pairs & 0xF, torch.bitwise_right_shift(pairs, 4)]
    codes = torch.stack(halves, dim=-1).flatten(1)
    table = torch.tensor([*E2M1_VALUES, *(-value for value in E2M1_VALUES)], device=codes.device)
    elements = table[codes.to(torch.int64)].view(len(codes), -1, GROUP_SIZE)
    scales = packed.scales.view(torch.uint8).to(torch.int32)
    values = elements * power_of_two((scales - E8M0_BIAS).clamp(max=E8M0_BIAS))[..., None]
    return torch.where((scales == E8M0_NAN)[..., None], torch.nan, values).flatten(1)


def _codes(elements: Tensor) -> Tensor:
    """Four-bit code of each E2M1 value; the sign of zero is kept."""
    table = torch.tensor(E2M1_VALUES, device=elements.device)
    magnitudes = torch.searchsorted(table, elements.abs().contiguous())
    codes = magnitudes + SIGN_BIT * torch.signbit(elements).to(torch.int64)
    return codes.clamp(max=2 * SIGN_BIT - 1).to(torch.uint8)  # NaN sorts beyond the table
