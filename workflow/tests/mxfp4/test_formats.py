"""E2M1 and E8M0 against tables typed from OCP Microscaling Formats v1.0, sections 5.3 and 5.4."""

import itertools
import math

import pytest
import torch

from blockwise.config.recipes import ScaleRule
from blockwise.mxfp4.formats import (
    E2M1_VALUES,
    power_of_two,
    round_stochastically,
    round_to_nearest,
    scale_exponents,
)

# Table 5 of the standard: sign, exponent and mantissa bits with bias 1; no Inf, no NaN.
E2M1_BY_CODE = {
    0b0000: 0.0,
    0b0001: 0.5,
    0b0010: 1.0,
    0b0011: 1.5,
    0b0100: 2.0,
    0b0101: 3.0,
    0b0110: 4.0,
    0b0111: 6.0,
    0b1000: -0.0,
    0b1001: -0.5,
    0b1010: -1.0,
    0b1011: -1.5,
    0b1100: -2.0,
    0b1101: -3.0,
    0b1110: -4.0,
    0b1111: -6.0,
}
# Halfway between two neighbours the one with an even mantissa bit wins.
TIES = {0.25: 0.0, 0.75: 1.0, 1.25: 1.0, 1.75: 2.0, 2.5: 2.0, 3.5: 4.0, 5.0: 4.0}
FP32_MAX = torch.finfo(torch.float32).max
LAST_BELOW_1 = 1 - 2.0**-22  # the largest number that `noise.uniform` gives


def above(value):
    return math.nextafter(value, math.inf) if value == 0 else value * (1 + 2.0**-23)


def below(value):
    """The next float32 below a power of two, or at least a float32 below another value."""
    return value * (1 - 2.0**-23)


def rounded(values):
    return round_to_nearest(torch.tensor(values, dtype=torch.float32))


def assert_same_bits(result, expected):
    expected = torch.as_tensor(expected, dtype=torch.float32)
    assert torch.equal(result.view(torch.int32), expected.view(torch.int32)), (result, expected)


def exponents_of(amax, rule):
    return scale_exponents(torch.tensor(amax, dtype=torch.float32), rule).tolist()


def test_values_are_those_of_the_standard():
    assert list(E2M1_VALUES) == [E2M1_BY_CODE[code] for code in range(8)]
    for code, value in E2M1_BY_CODE.items():
        sign, exponent, mantissa = code >> 3, code >> 1 & 3, code & 1
        magnitude = 2.0 ** (exponent - 1) * (1 + mantissa / 2) if exponent else mantissa / 2
        assert math.copysign(magnitude, -1 if sign else 1) == value


def test_every_value_stays_what_it_is():
    values = list(E2M1_BY_CODE.values())
    assert_same_bits(rounded(values), values)


@pytest.mark.parametrize("sign", [1, -1])
def test_ties_go_to_the_even_mantissa_and_their_neighbours_do_not(sign):
    ties = [sign * tie for tie in TIES]
    assert_same_bits(rounded(ties), [sign * value for value in TIES.values()])
    magnitudes = E2M1_VALUES[: len(TIES)]
    assert_same_bits(rounded([below(tie) for tie in ties]), [sign * value for value in magnitudes])
    assert_same_bits(
        rounded([above(tie) for tie in ties]), [sign * value for value in E2M1_VALUES[1:]]
    )


def test_beyond_six_it_is_six():
    values = [above(6.0), 6.5, 7.0, 8.0, 1e30, FP32_MAX, math.inf]
    assert rounded(values).tolist() == [6.0] * len(values)
    assert rounded([-value for value in values]).tolist() == [-6.0] * len(values)


def test_subnormal_values_become_a_zero_of_their_sign():
    assert_same_bits(rounded([2.0**-149, -(2.0**-149), 2.0**-127]), [0.0, -0.0, 0.0])


def test_nearest_is_nearest():
    values = torch.rand(20_000, generator=torch.Generator().manual_seed(1)) * 16 - 8
    distances = (values.double().abs()[:, None] - torch.tensor(E2M1_VALUES)).abs()
    expected = torch.tensor(E2M1_VALUES)[distances.argmin(1)].copysign(values)
    assert_same_bits(round_to_nearest(values), expected)


def test_stochastic_rounding_goes_up_with_the_share_of_the_way_that_is_done():
    grid = torch.arange(0, 256) / 256
    for lower, upper in itertools.pairwise(E2M1_VALUES):
        for share in (0.25, 0.5, 0.75):
            value = torch.full_like(grid, lower + share * (upper - lower))
            result = round_stochastically(value, grid)
            assert set(result.tolist()) == {lower, upper}
            assert (result == upper).float().mean() == share
            assert torch.equal(round_stochastically(-value, grid), -result)


def test_stochastic_rounding_beyond_six_is_six():
    values = torch.tensor([6.0, 6.01, 7.9, 1e30, math.inf])
    for uniform in (0.0, 0.5, LAST_BELOW_1):
        result = round_stochastically(values, torch.full_like(values, uniform))
        assert result.tolist() == [6.0] * len(values)


def test_stochastic_rounding_leaves_representable_values_alone():
    values = torch.tensor(E2M1_VALUES)
    for uniform in (0.0, 0.5, LAST_BELOW_1):
        result = round_stochastically(values, torch.full_like(values, uniform))
        assert result.tolist() == list(E2M1_VALUES), uniform


def test_powers_of_two_are_exact():
    exponents = torch.arange(-127, 128, dtype=torch.int32)
    expected = [math.ldexp(1.0, exponent) for exponent in exponents.tolist()]
    assert_same_bits(power_of_two(exponents), expected)


# amax: exponents under even, floor, ceil, rceil. Element 6 = 1.5 * 2^2 is the largest.
RULES = (ScaleRule.EVEN, ScaleRule.FLOOR, ScaleRule.CEIL, ScaleRule.RCEIL)
EXPONENTS = {
    0.0: (-127, -127, -127, -127),
    2.0**-149: (-127, -127, -127, -127),  # the smallest float32
    2.0**-123: (-125, -125, -125, -125),
    1.0: (-2, -2, -2, -2),
    above(1.0): (-2, -2, -1, -2),
    1.5: (-2, -2, -1, -2),
    above(1.5): (-2, -2, -1, -1),
    1.75 - 2.0**-23: (-2, -2, -1, -1),
    1.75: (-1, -2, -1, -1),  # even rounds half up
    2 - 2.0**-23: (-1, -2, -1, -1),
    2.0: (-1, -1, -1, -1),
    above(2.0): (-1, -1, 0, -1),
    3.0: (-1, -1, 0, -1),
    above(3.0): (-1, -1, 0, 0),
    3.5: (0, -1, 0, 0),
    4.0: (0, 0, 0, 0),
    6.0: (0, 0, 1, 0),
    above(6.0): (0, 0, 1, 1),
    7.0: (1, 0, 1, 1),
    8.0: (1, 1, 1, 1),
    2.0**127: (125, 125, 125, 125),
    1.5 * 2.0**127: (125, 125, 126, 125),
    FP32_MAX: (126, 125, 126, 126),
}


@pytest.mark.parametrize(("column", "rule"), list(enumerate(RULES)), ids=RULES)
def test_scale_of_every_edge(column, rule):
    expected = [row[column] for row in EXPONENTS.values()]
    assert exponents_of(list(EXPONENTS), rule) == expected


# 2^-127 is the smallest scale of E8M0, and a float32 subnormal. amax in units of it.
SMALLEST = {
    0.5: (-127, -127, -127, -127),
    1.0: (-127, -127, -127, -127),
    1.5: (-127, -127, -127, -127),
    4.0: (-127, -127, -127, -127),
    6.0: (-127, -127, -126, -127),
    7.0: (-126, -127, -126, -126),
    8.0: (-126, -126, -126, -126),
    12.0: (-126, -126, -125, -126),
}


@pytest.mark.parametrize(("column", "rule"), enumerate(RULES))
def test_scale_of_the_smallest_groups(column, rule):
    expected = [row[column] for row in SMALLEST.values()]
    assert exponents_of([amax * 2.0**-127 for amax in SMALLEST], rule) == expected


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shift", [-100, -31, 7, 100])
def test_scale_follows_a_power_of_two(rule, shift):
    amax = [value for value in EXPONENTS if 1 <= value <= 8]
    shifted = exponents_of([value * 2.0**shift for value in amax], rule)
    assert shifted == [exponent + shift for exponent in exponents_of(amax, rule)]


def test_ceil_and_rceil_clip_nothing_and_floor_and_even_do():
    amax = torch.cat([torch.linspace(1, 8, 4001), torch.tensor([6.0, above(6.0)])])
    largest = {rule: (amax * power_of_two(-scale_exponents(amax, rule))).max() for rule in RULES}
    assert largest[ScaleRule.CEIL] == 4
    assert largest[ScaleRule.RCEIL] == 6
    assert 6.9 < largest[ScaleRule.EVEN] < 7
    assert 7.9 < largest[ScaleRule.FLOOR] < 8
