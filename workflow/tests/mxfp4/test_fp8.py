"""FP8 with one scale a tensor: torch's own cast, and the edges around it."""

import math

import pytest
import torch

from blockwise.mxfp4.fp8 import fake_quantize_fp8

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
LARGEST = {E4M3: 448.0, E5M2: 57344.0}  # OCP 8-bit floating point v1.0, table 1
BOTH = pytest.mark.parametrize("dtype", [E4M3, E5M2], ids=["e4m3", "e5m2"])


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unscaled(values, dtype):
    """Quantized with the scale 1: the largest value of the format is among them."""
    values = torch.tensor([*values, LARGEST[dtype]])
    return fake_quantize_fp8(values, dtype)[:-1].tolist()


@BOTH
@pytest.mark.parametrize("factor", [1.0, 1e-6, 1e6, 0.1])
def test_equals_torchs_cast_at_the_scale(dtype, factor):
    values = normal(64, 64) * factor
    scale = values.abs().max() / LARGEST[dtype]
    ratio = (values / scale).clamp(-LARGEST[dtype], LARGEST[dtype])
    expected = ratio.to(dtype).float() * scale
    assert torch.equal(fake_quantize_fp8(values, dtype), expected)


def test_values_by_hand():
    """E4M3 has 3 mantissa bits and ends at 2^-9, E5M2 has 2 and ends at 2^-16."""
    values = [17.0, 19.0, 1.0625, -1.1875, 2.0**-9, 2.0**-10, 1.5 * 2.0**-10]
    assert unscaled(values, E4M3) == [16.0, 20.0, 1.0, -1.25, 2.0**-9, 0.0, 2.0**-9]
    values = [9.0, 11.0, 1.125, -1.375, 2.0**-16, 2.0**-17]
    assert unscaled(values, E5M2) == [8.0, 12.0, 1.0, -1.5, 2.0**-16, 0.0]


@BOTH
@pytest.mark.parametrize("amax", [1.0, 3.0, 0.1, 448.0, 1e-20, 1e30, torch.finfo().max])
def test_the_largest_magnitude_maps_to_the_largest_value(dtype, amax):
    values = torch.tensor([amax, -amax, amax / 2, 0.0])
    result = fake_quantize_fp8(values, dtype)
    assert result.tolist() == pytest.approx(values.tolist(), rel=2**-22, abs=0)


@BOTH
def test_zeros_stay(dtype):
    assert torch.equal(fake_quantize_fp8(torch.zeros(4, 4), dtype), torch.zeros(4, 4))


@BOTH
def test_a_tensor_of_the_smallest_floats_has_no_nan(dtype):
    values = torch.tensor([0.0, 2.0**-149, -(2.0**-149)])
    assert not fake_quantize_fp8(values, dtype).isnan().any()


@BOTH
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_a_poisoned_tensor_is_nan(dtype, poison):
    values = normal(4, 4)
    values[1, 2] = poison
    assert fake_quantize_fp8(values, dtype).isnan().all()


@BOTH
def test_type_and_shape_stay(dtype):
    values = normal(2, 3, 5).bfloat16()
    result = fake_quantize_fp8(values, dtype)
    assert result.dtype == torch.bfloat16
    assert result.shape == values.shape
    assert torch.equal(result, fake_quantize_fp8(values.float(), dtype).bfloat16())


@pytest.mark.parametrize(("dtype", "half_step"), [(E4M3, 2**-4), (E5M2, 2**-3)])
def test_the_error_is_at_most_half_a_step(dtype, half_step):
    values = normal(64, 64)
    error = (fake_quantize_fp8(values, dtype) - values).abs()
    smallest_step = values.abs().max() / LARGEST[dtype] * 2.0 ** (-9 if dtype == E4M3 else -16)
    allowed = torch.maximum(values.abs() * half_step, smallest_step / 2) * (1 + 1e-6)
    assert (error <= allowed).all()
