"""Groups, scales and elements together: against torchao, by hand, and in expectation."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from blockwise.config.recipes import GroupShape, Operand, Rounding, ScaleRule
from blockwise.mxfp4.formats import E2M1_VALUES, power_of_two, scale_exponents
from blockwise.mxfp4.quantize import PRESCALE, fake_quantize, product_factor

FP32_MAX = torch.finfo(torch.float32).max
SQUARE = GroupShape.SQUARE


def key(number):
    return torch.tensor(number, dtype=torch.int32)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rows(*groups):
    """A matrix with a group a row: the given values, then zeros."""
    matrix = torch.zeros(len(groups), 32)
    for row, values in enumerate(groups):
        matrix[row, : len(values)] = torch.tensor(values)
    return matrix


def quantized(values, rule=ScaleRule.EVEN, axis=1, **operand):
    return fake_quantize(values, axis, Operand(scale_rule=rule, **operand))


def assert_same_bits(result, expected):
    """Equal to the sign of zero; NaN where the other has NaN."""
    assert result.dtype == expected.dtype
    assert torch.equal(result.isnan(), expected.isnan())
    assert torch.equal(result.nan_to_num(), expected.nan_to_num())
    assert torch.equal(result.signbit() & ~result.isnan(), expected.signbit() & ~expected.isnan())


# --- by hand -------------------------------------------------------------------------------


def test_a_group_by_hand():
    """amax 7: even takes the scale 2 (elements to 3.5), floor 1, which clips."""
    values = [7.0, 5.0, 3.0, 0.5, 0.25, -0.25, -2.5, 1.1]
    assert quantized(rows(values))[0, :8].tolist() == [8.0, 4.0, 3.0, 0.0, 0.0, -0.0, -2.0, 1.0]
    floor = quantized(rows(values), ScaleRule.FLOOR)
    assert floor[0, :8].tolist() == [6.0, 4.0, 3.0, 0.5, 0.0, -0.0, -2.0, 1.0]


@pytest.mark.parametrize("rule", ScaleRule)
def test_zeros_stay_and_keep_their_sign(rule):
    zeros = torch.zeros(2, 32)
    zeros[1] = -0.0
    assert_same_bits(quantized(zeros, rule), zeros)


def test_the_smallest_scale_is_exact():
    unit = 2.0**-127
    values = rows([6 * unit, 0.5 * unit, 0.25 * unit, 0.375 * unit, -1.25 * unit])
    expected = rows([6 * unit, 0.5 * unit, 0.0, 0.5 * unit, -1.0 * unit])
    assert_same_bits(quantized(values, ScaleRule.FLOOR), expected)
    only_subnormals = rows([2.0**-128, 2.0**-129, -(2.0**-149)])
    for rule in (ScaleRule.EVEN, ScaleRule.FLOOR, ScaleRule.CEIL):
        assert_same_bits(quantized(only_subnormals, rule), rows([2.0**-128, 0.0, -0.0]))


def test_rceil_keeps_what_the_smallest_scale_can_hold():
    values = rows([2.0**-128, 2.0**-129])
    assert_same_bits(quantized(values, ScaleRule.RCEIL), rows([2.0**-128, 0.0]))


def test_the_largest_values():
    """2^128 is no float32: where a rule rounds the largest float32 up, emulation overflows."""
    values = rows([FP32_MAX, -FP32_MAX, 2.0**127])
    floor = quantized(values, ScaleRule.FLOOR)
    assert floor[0, :3].tolist() == [1.5 * 2.0**127, -1.5 * 2.0**127, 2.0**127]
    for rule in (ScaleRule.EVEN, ScaleRule.CEIL, ScaleRule.RCEIL):
        assert quantized(values, rule)[0, :3].tolist() == [math.inf, -math.inf, 2.0**127]


@pytest.mark.parametrize("rule", ScaleRule)
@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_a_poisoned_group_is_nan_and_no_other_changes(rule, rounding, poison):
    operand = Operand(scale_rule=rule, rounding=rounding)
    clean = normal(64, 64)
    for axis in (0, 1):
        values = clean.clone()
        values[40, 3] = poison
        result = fake_quantize(values, axis, operand, key(1))
        group = (slice(32, 64), 3) if axis == 0 else (40, slice(0, 32))
        assert result[group].isnan().all()
        assert result.isnan().sum() == 32
        rest = fake_quantize(clean, axis, operand, key(1))
        assert torch.equal(result[~result.isnan()], rest[~result.isnan()])


def test_a_poisoned_square_is_nan_and_no_other_changes():
    values = normal(64, 96)
    values[40, 3] = math.nan
    result = quantized(values, groups=SQUARE)
    assert result[32:, :32].isnan().all()
    assert result.isnan().sum() == 32 * 32


# --- against torchao -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def torchao_quantized():
    """torchao's fake quantization: (matrix, rule) to a matrix of the same type."""
    reason = "needs torchao, the reference that scales and elements are compared with"
    mx = pytest.importorskip("torchao.prototype.mx_formats.mx_tensor", reason=reason)
    config = pytest.importorskip("torchao.prototype.mx_formats.config", reason=reason)

    def quantize(values, rule):
        mode = config.ScaleCalculationMode(rule.value)
        tensor = mx.MXTensor.to_mx(values, torch.float4_e2m1fn_x2, 32, mode)
        return tensor.dequantize(torch.float32).to(values.dtype)

    return quantize


def tie_rows():
    """Every tie and value of E2M1 with both signs, at many scales, below several maxima."""
    halves = torch.tensor(E2M1_VALUES)
    ties = torch.cat([halves, (halves[1:] + halves[:-1]) / 2])
    group = torch.cat([ties, -ties, torch.zeros(2)])
    tops = torch.tensor([4.0, 5.0, 6.0, 7.0, 3.5, 1.75 * 4])
    matrix = group.repeat(len(tops), 1)
    matrix[:, -1] = tops
    return torch.cat([matrix * 2.0**shift for shift in (-60, -3, 0, 1, 40)])


def amax_sweep():
    """Groups whose largest value runs through two octaves."""
    values = torch.rand(1024, 32, generator=torch.Generator().manual_seed(4))
    values[:, 7] = torch.linspace(1, 4, 1024)
    return values


INPUTS = {
    "normal": normal(256, 256),
    "heavy_tailed": normal(256, 256) * torch.exp(3 * normal(256, 256, seed=1)),
    "tiny": normal(256, 256) * 1e-30,
    "huge": normal(256, 256) * 1e37,
    "near_the_smallest": normal(256, 256) * 1e-37,
    "ties": tie_rows(),
    "amax_sweep": amax_sweep(),
    "zeros": torch.zeros(4, 32),
    "bf16": normal(256, 256).bfloat16(),
    "bf16_heavy_tailed": (normal(256, 256) * torch.exp(3 * normal(256, 256, seed=1))).bfloat16(),
}


TORCHAO_RULES = (ScaleRule.EVEN, ScaleRule.FLOOR, ScaleRule.CEIL, ScaleRule.RCEIL)


def has_normal_scale(values, rule):
    """Which elements stand in a group whose scale is above 2^-127.

    That scale is a subnormal of float32. The standard has it and we honour it; torchao, whose
    kernels flush subnormals, divides such a group by 2^-126 or 1 instead.
    """
    groups = values.float().view(len(values), -1, 32)
    exponents = scale_exponents(groups.abs().amax(2), rule)
    return (exponents > -127).repeat_interleave(32, dim=1)


@pytest.mark.parametrize("rule", TORCHAO_RULES)
@pytest.mark.parametrize("name", INPUTS)
def test_equals_torchao_bit_for_bit(torchao_quantized, rule, name):
    values = INPUTS[name]
    compared = has_normal_scale(values, rule)
    assert compared.float().mean() > 0.9 or name in ("zeros", "near_the_smallest")
    expected = torchao_quantized(values, rule)
    assert_same_bits(quantized(values, rule)[compared], expected[compared])


GROUPS = st.lists(
    st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=32, max_size=32
).map(lambda values: torch.tensor([values]))
MODERATE = st.lists(
    st.floats(-(2.0**60), 2.0**60, width=32, allow_subnormal=False).map(
        lambda value: value if abs(value) > 2.0**-60 else 0.0
    ),
    min_size=32,
    max_size=32,
).map(lambda values: torch.tensor([values]))


@given(GROUPS)
@settings(max_examples=50, deadline=None)
def test_equals_torchao_on_any_group(torchao_quantized, values):
    """Not rceil: torchao takes log2 in float32, which loses what lies just above 6 * 2^k."""
    for rule in (ScaleRule.EVEN, ScaleRule.FLOOR, ScaleRule.CEIL):
        compared = has_normal_scale(values, rule)
        expected = torchao_quantized(values, rule)
        assert_same_bits(quantized(values, rule)[compared], expected[compared])


# --- properties ----------------------------------------------------------------------------


@given(MODERATE)
@settings(max_examples=50, deadline=None)
def test_quantizing_again_negating_and_doubling(values):
    for rule in ScaleRule:
        once = quantized(values, rule)
        assert_same_bits(quantized(once, rule), once)
        assert_same_bits(quantized(-values, rule), -once)
        assert_same_bits(quantized(2 * values, rule), 2 * once)


@pytest.mark.parametrize("rule", ScaleRule)
def test_groups_along_columns_are_those_of_the_transpose(rule):
    values = INPUTS["heavy_tailed"][:64, :96].contiguous()
    transposed = quantized(values.T.contiguous(), rule, axis=1).T
    assert_same_bits(quantized(values, rule, axis=0), transposed)


@pytest.mark.parametrize("rule", ScaleRule)
def test_square_groups_are_those_of_the_transpose(rule):
    values = INPUTS["heavy_tailed"][:64, :96].contiguous()
    result = quantized(values, rule, groups=SQUARE)
    assert_same_bits(result, quantized(values.T.contiguous(), rule, groups=SQUARE).T)
    assert_same_bits(result, quantized(values, rule, axis=0, groups=SQUARE))


def test_a_square_has_one_scale():
    values = torch.full((64, 64), 0.25)
    values[33, 2] = 6.0
    result = quantized(values, groups=SQUARE)
    expected = values.clone()
    expected[32:, :32] = 0.0  # below half of the smallest element at the outlier's scale
    expected[33, 2] = 6.0
    assert torch.equal(result, expected)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_transpose_is_read_right(axis):
    values = normal(64, 96).T
    assert_same_bits(quantized(values, axis=axis), quantized(values.contiguous(), axis=axis))


# --- stochastic rounding -------------------------------------------------------------------

NUM_DRAWS = 400
FIVE_SIGMA = 5.0  # of the largest of 2048 means: one in 800 of such tests would fail by chance


def draws_of(values, operand):
    """What a product gets of each value: the pre-scale is divided out of it."""
    factor = product_factor([operand])
    return torch.stack(
        [fake_quantize(values, 1, operand, key(k)) * factor for k in range(NUM_DRAWS)]
    )


def neighbours(values, operand):
    """The two representable values around each value, for values that do not clip."""
    amax = values.view(len(values), -1, 32).abs().amax(2)
    scales = power_of_two(scale_exponents(amax, operand.scale_rule)).double()
    if operand.rounding == Rounding.SR34:
        scales = scales / PRESCALE
    scales = scales.repeat_interleave(32, dim=1)
    grid = torch.tensor([-value for value in E2M1_VALUES[:0:-1]] + list(E2M1_VALUES)).double()
    upper = torch.searchsorted(grid, values.double() / scales).clamp(1, len(grid) - 1)
    return grid[upper - 1] * scales, grid[upper] * scales


def clipped(values, operand):
    """Which values lie beyond 6 scales."""
    lower, upper = neighbours(values, operand)
    return (values > upper) | (values < lower)


def variances(values, operand):
    """Variance of each value's two outcomes; none where it clips."""
    lower, upper = neighbours(values, operand)
    return ((upper - values) * (values - lower)).clamp(min=0)


def standard_scores(values, draws, operand):
    """Mean error of each value in standard errors."""
    standard_errors = (variances(values, operand) / len(draws)).sqrt()
    return (draws.double().mean(0) - values) / standard_errors


def relative_bias(values, draws, operand):
    """<x, mean error> / <x, x>, below zero where values shrink, and its standard error."""
    wide = values.double()
    square = (wide * wide).sum()
    error = (wide * wide * variances(values, operand) / len(draws)).sum().sqrt() / square
    return float((wide * (draws.double().mean(0) - wide)).sum() / square), float(error)


SR_VALUES = normal(64, 32, seed=9)
UNCLIPPED = [
    Operand(rounding=Rounding.SR, scale_rule=ScaleRule.CEIL),
    Operand(rounding=Rounding.SR, scale_rule=ScaleRule.RCEIL),
    *(Operand(rounding=Rounding.SR34, scale_rule=rule) for rule in ScaleRule),
]


@pytest.mark.parametrize("operand", UNCLIPPED, ids=lambda o: f"{o.rounding}-{o.scale_rule}")
def test_stochastic_rounding_is_unbiased_where_nothing_clips(operand):
    assert not clipped(SR_VALUES, operand).any()
    scores = standard_scores(SR_VALUES, draws_of(SR_VALUES, operand), operand)
    assert scores.abs().max() < FIVE_SIGMA
    assert abs(scores.mean()) < FIVE_SIGMA / scores.numel() ** 0.5
    assert scores.std() == pytest.approx(1, abs=0.1)  # and no more regular than chance


@pytest.mark.parametrize("rule", [ScaleRule.FLOOR, ScaleRule.EVEN])
def test_stochastic_rounding_is_biased_where_values_clip_and_nowhere_else(rule):
    operand = Operand(rounding=Rounding.SR, scale_rule=rule)
    draws = draws_of(SR_VALUES, operand)
    is_clipped = clipped(SR_VALUES, operand)
    assert is_clipped.any()
    assert (draws[:, is_clipped] == draws[0, is_clipped]).all()
    assert (draws[0, is_clipped].abs() < SR_VALUES[is_clipped].abs()).all()
    scores = standard_scores(SR_VALUES, draws, operand)[~is_clipped]
    assert scores.abs().max() < FIVE_SIGMA
    lost = (SR_VALUES * (draws[0] - SR_VALUES)).double()[is_clipped].sum()
    expected = float(lost / (SR_VALUES.double() ** 2).sum())
    bias, standard_error = relative_bias(SR_VALUES, draws, operand)
    assert abs(bias - expected) < FIVE_SIGMA * standard_error
    assert bias < -FIVE_SIGMA * standard_error


def test_the_prescale_removes_the_bias_of_floor():
    biases = []
    for rounding in (Rounding.SR, Rounding.SR34):
        operand = Operand(rounding=rounding, scale_rule=ScaleRule.FLOOR)
        biases.append(relative_bias(SR_VALUES, draws_of(SR_VALUES, operand), operand))
    (clipping, _), (prescaled, standard_error) = biases
    assert abs(prescaled) < FIVE_SIGMA * standard_error
    assert clipping < -0.005  # measured: 0.9% lost


def test_the_prescale_is_unbiased_in_bf16_too():
    """Under autocast operands stay bf16, which holds every E2M1 value at every scale."""
    operand = Operand(rounding=Rounding.SR34)
    values = normal(256, 256).bfloat16()
    exact = fake_quantize(values.float(), 1, operand, key(1))
    rounded = fake_quantize(values, 1, operand, key(1)).float()
    assert abs((exact * (rounded - exact)).sum() / (exact * exact).sum()) < 2e-4


@pytest.mark.parametrize("rounding", [Rounding.SR, Rounding.SR34])
def test_only_the_two_neighbours_ever_occur(rounding):
    operand = Operand(rounding=rounding, scale_rule=ScaleRule.RCEIL)
    draws = draws_of(SR_VALUES, operand) / product_factor([operand])
    bounds = neighbours(SR_VALUES, operand)
    lower, upper = ((bound / product_factor([operand])).float() for bound in bounds)
    assert ((draws == lower) | (draws == upper)).all()
    assert (draws == lower).any(0).float().mean() > 0.9  # and both of them do
    assert (draws == upper).any(0).float().mean() > 0.9


def test_the_same_key_gives_the_same_bits_and_another_key_others():
    for axis, groups in itertools.product((0, 1), GroupShape):
        operand = Operand(rounding=Rounding.SR, groups=groups)
        values = normal(64, 64)
        first = fake_quantize(values, axis, operand, key(1))
        assert_same_bits(fake_quantize(values, axis, operand, key(1)), first)
        assert not torch.equal(fake_quantize(values, axis, operand, key(2)), first)


def test_rounding_to_nearest_needs_no_key():
    values = normal(32, 32)
    assert torch.equal(fake_quantize(values, 1, Operand(), key(1)), quantized(values))
