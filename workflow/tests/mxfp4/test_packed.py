"""Packed MXFP4 holds exactly what emulation computes, in the layout hardware reads."""

import math

import pytest
import torch

from blockwise.config.recipes import GroupShape, Operand, Rounding, ScaleRule
from blockwise.mxfp4.formats import E2M1_VALUES
from blockwise.mxfp4.packed import Packed, pack, unpack
from blockwise.mxfp4.quantize import fake_quantize

OPERANDS = [
    Operand(rounding=rounding, scale_rule=rule, groups=groups)
    for rounding in (Rounding.RTNE, Rounding.SR)
    for rule in ScaleRule
    for groups in GroupShape
]


def key(number):
    return torch.tensor(number, dtype=torch.int32)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def as_bytes(values):
    return values.view(torch.uint8)


def hard_matrix():
    """Ordinary, heavy-tailed, zero, minus zero, tiny, huge and poisoned groups."""
    values = normal(96, 128)
    values[32:64] *= torch.exp(4 * normal(32, 128, seed=1))
    values[64, :32] = 0.0
    values[65, :32] = -0.0
    values[66, :32] *= 1e-30
    values[67, :32] *= 1e30
    values[68, :32] *= 2.0**-127
    values[69, 40] = math.nan
    values[70, 70] = math.inf
    values[71, 100] = -math.inf
    return values


def packed_codes(values):
    """Codes of one group of 32 with the scale 1, in the order of its values."""
    matrix = torch.zeros(1, 32)
    matrix[0, : len(values)] = torch.tensor(values)
    matrix[0, -1] = 6.0
    packed = pack(matrix, Operand())
    assert as_bytes(packed.scales).item() == 127
    pairs = as_bytes(packed.elements)[0]
    return torch.stack([pairs & 0xF, pairs >> 4], 1).flatten().tolist()


@pytest.mark.parametrize(
    "operand", OPERANDS, ids=lambda o: f"{o.rounding}-{o.scale_rule}-{o.groups}"
)
def test_what_was_packed_is_what_is_emulated(operand):
    values = hard_matrix()
    result = unpack(pack(values, operand, key(3)))
    expected = fake_quantize(values, 1, operand, key(3))
    assert expected.isnan().any()
    assert not expected.isnan().all()
    assert torch.equal(result.view(torch.int32), expected.view(torch.int32))


def test_bf16_is_packed_as_it_is_emulated():
    values = normal(32, 64).bfloat16()
    result = unpack(pack(values, Operand()))
    assert torch.equal(result, fake_quantize(values, 1, Operand()).float())


def test_the_layout():
    packed = pack(normal(96, 128), Operand())
    assert packed.elements.dtype == torch.float4_e2m1fn_x2
    assert packed.elements.shape == (96, 64)
    assert packed.scales.dtype == torch.float8_e8m0fnu
    assert packed.scales.shape == (96, 4)
    assert packed.elements.is_contiguous()
    assert packed.scales.is_contiguous()


def test_every_value_has_the_code_of_the_standard():
    values = [*E2M1_VALUES, *(-value for value in E2M1_VALUES)]
    assert packed_codes(values)[:16] == list(range(16))


def test_small_values_keep_their_sign_as_zero():
    assert packed_codes([0.1, -0.1])[:2] == [0b0000, 0b1000]


def test_every_byte_unpacks_to_the_even_column_first():
    pairs = torch.arange(256, dtype=torch.uint8).view(16, 16)
    scales = torch.full((16, 1), 127, dtype=torch.uint8)
    result = unpack(Packed(pairs.view(torch.float4_e2m1fn_x2), scales.view(torch.float8_e8m0fnu)))
    values = [*E2M1_VALUES, *(-value for value in E2M1_VALUES)]
    expected = [[values[byte & 15], values[byte >> 4]] for byte in range(256)]
    assert torch.equal(result.view(256, 2), torch.tensor(expected))


def test_every_scale_unpacks_to_its_power_of_two():
    pairs = torch.full((256, 16), 0x22, dtype=torch.uint8)  # ones
    scales = torch.arange(256, dtype=torch.uint8).view(256, 1)
    result = unpack(Packed(pairs.view(torch.float4_e2m1fn_x2), scales.view(torch.float8_e8m0fnu)))
    expected = torch.tensor([math.ldexp(1.0, code - 127) for code in range(255)])
    assert torch.equal(result[:255], expected[:, None].expand(255, 32))
    assert result[255].isnan().all()


def test_scales_are_biased_by_127_and_nan_is_255():
    values = torch.zeros(5, 32)
    values[:, 0] = torch.tensor([6.0, 1.5, 6 * 2.0**120, math.inf, 0.0])
    assert as_bytes(pack(values, Operand()).scales).flatten().tolist() == [127, 125, 247, 255, 0]


def test_each_row_of_a_square_gets_its_scale():
    values = normal(64, 96)
    values[5, 40] = 100.0
    scales = as_bytes(pack(values, Operand(groups=GroupShape.SQUARE)).scales)
    assert (scales[:32] == scales[0]).all()
    assert (scales[32:] == scales[32]).all()
    assert scales[0, 1] > scales[0, 0]
    assert scales[32, 1] < scales[0, 1]


def test_the_prescale_stays_in():
    values, operand = normal(32, 32), Operand(rounding=Rounding.SR34)
    result = unpack(pack(values, operand, key(1)))
    assert torch.equal(result, fake_quantize(values, 1, operand, key(1)))
    assert float((result * values).sum() / (values * values).sum()) == pytest.approx(0.75, abs=0.02)
