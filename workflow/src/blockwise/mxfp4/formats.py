"""MXFP4 numbers: E2M1 elements below a shared power-of-two scale (E8M0).

OCP Microscaling Formats v1.0, with the four rules in use for the scale. Everything here works
on float32 bit patterns with integer operations, so that eager, compiled and device results
agree to the last bit, and scales down to 2^-127 (a float32 subnormal) are exact. Shifts are
torch's functions, since the operators `>>` and `<<` do nothing to a DTensor, silently
(pytorch#156533).
"""

import torch
from torch import Tensor

from blockwise.config.recipes import ScaleRule

E2M1_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # by code; the fourth bit is the sign
E2M1_MAX = 6.0
E2M1_MAX_EXPONENT = 2  # of 6.0 = 1.5 * 2^2
E8M0_BIAS = 127
E8M0_NAN = 255
FP32_BIAS = 127
FP32_MANTISSA_BITS = 23
FP32_MANTISSA_MASK = (1 << FP32_MANTISSA_BITS) - 1
FP32_EXPONENT_MASK = 0xFF
TWO_TO_MINUS_127_BITS = 0x00400000  # the float32 subnormal 2^-127
ONE_BINADE = 1 << FP32_MANTISSA_BITS  # added to the bits of a power of two, it doubles it
ANCHOR_BITS = (FP32_MANTISSA_BITS - 1) * ONE_BINADE + ONE_BINADE // 2  # times 1.5 * 2^22
INVERSE_BITS = (2 * FP32_BIAS + 1) * ONE_BINADE  # less the bits of 2^e: the bits of 2^(1 - e)
ROUNDED_UP_ABOVE = {ScaleRule.CEIL: 0, ScaleRule.RCEIL: ONE_BINADE // 2}
"""Mantissa above which the exponent of amax is one too small."""


def scale_exponents(amax: Tensor, rule: ScaleRule) -> Tensor:
    """Exponent of each group's scale.

    Args:
        amax: largest magnitude of each group; float32, finite or not, at least 0.
        rule: how it becomes a power of two.

    Returns:
        int32 in [-127, 127], of amax's shape. A group with a NaN or Inf has no scale; callers
        mark it with the NaN of E8M0.
    """
    bits = amax.view(torch.int32)
    if rule == ScaleRule.EVEN:  # one mantissa bit survives: half of it is added before the cut
        bits = bits + (1 << (FP32_MANTISSA_BITS - 2))
    binades = torch.bitwise_right_shift(bits, FP32_MANTISSA_BITS) & FP32_EXPONENT_MASK
    exponents = binades - FP32_BIAS - E2M1_MAX_EXPONENT
    if rule in ROUNDED_UP_ABOVE:  # the significand decides: above 1, or above that of 6
        is_above = (bits & FP32_MANTISSA_MASK) > ROUNDED_UP_ABOVE[rule]
        exponents = exponents + is_above.to(torch.int32)
    return exponents.clamp(-E8M0_BIAS, E8M0_BIAS)


def power_of_two(exponents: Tensor) -> Tensor:
    """2^exponents, exact, for int32 exponents in [-127, 127]."""
    normal = torch.bitwise_left_shift(exponents + FP32_BIAS, FP32_MANTISSA_BITS)
    bits = torch.where(exponents < 1 - FP32_BIAS, TWO_TO_MINUS_127_BITS, normal)
    return bits.to(torch.int32).view(torch.float32)


def round_to_nearest(scaled: Tensor) -> Tensor:
    """E2M1 value nearest to each float32, ties to even; beyond 6 it is 6.

    Adding a number whose last bit is worth one step leaves the addition to do the rounding.
    """
    magnitude, exponent_bits = _binades(scaled)
    anchor = (exponent_bits + ANCHOR_BITS).view(torch.float32)
    return torch.copysign((magnitude + anchor) - anchor, scaled)


def round_stochastically(scaled: Tensor, uniform: Tensor) -> Tensor:
    """One of the two E2M1 neighbours, the nearer one more likely; beyond 6 it is 6.

    Args:
        scaled: float32.
        uniform: numbers in [0, 1) of the same shape, multiples of 2^-22: with fewer than 4 steps
            the sum below is then exact for every E2M1 value, which stays what it is.
    """
    magnitude, exponent_bits = _binades(scaled)
    step = (exponent_bits - ONE_BINADE).view(torch.float32)  # two values a binade: half of it
    num_steps = magnitude * (INVERSE_BITS - exponent_bits).view(torch.float32)
    return torch.copysign((num_steps + uniform).floor() * step, scaled)


def _binades(scaled: Tensor) -> tuple[Tensor, Tensor]:
    """Magnitudes up to 6, and the float32 bits of the power of two below each, at least 1."""
    magnitude = scaled.abs().clamp(max=E2M1_MAX)
    bits = magnitude.view(torch.int32) & (FP32_EXPONENT_MASK << FP32_MANTISSA_BITS)
    return magnitude, bits.clamp(min=FP32_BIAS * ONE_BINADE)  # below 1 steps stay as they are
