"""Against numbers and definitions of others: Quartet's Table 2, and a three-way split of the error.

torchao's bits are compared in test_quantize.py.
"""

import pytest
import torch

from blockwise.config.recipes import Operand, Rounding, ScaleRule
from blockwise.mxfp4.formats import E2M1_MAX, power_of_two, round_to_nearest, scale_exponents
from blockwise.mxfp4.quantize import PRESCALE, fake_quantize, product_factor, quantize

NUM_GROUPS = 1 << 15
KEY = torch.tensor(1, dtype=torch.int32)
GAUSSIAN = torch.randn(NUM_GROUPS, 32, generator=torch.Generator().manual_seed(0))


def mean_square(values):
    return float(values.double().square().mean())


# --- Quartet (arXiv 2505.14669), Table 2 ---------------------------------------------------
#
# Its code (IST-DASLab/Quartet, src/models/quantization/quantizers/mxfp4_triton.py) scales by
# 2^(floor(log2 amax) - 2) / (3/4) in both rows: the floor rule after a pre-scale by 3/4.

QUARTET = {"RTN AbsMax": 1.37e-2, "SR AbsMax": 2.77e-2}


def test_quartets_stochastic_rounding_is_our_sr34_under_floor():
    operand = Operand(rounding=Rounding.SR34, scale_rule=ScaleRule.FLOOR)
    values = fake_quantize(GAUSSIAN, 1, operand, KEY) * product_factor([operand])
    assert mean_square(values - GAUSSIAN) == pytest.approx(QUARTET["SR AbsMax"], rel=0.02)


def test_quartets_rounding_to_nearest_has_the_same_prescale():
    """No arm of ours rounds so; its scale rule with our elements gives its number."""
    amax = GAUSSIAN.abs().amax(1, keepdim=True)
    scales = power_of_two(scale_exponents(amax, ScaleRule.FLOOR)) / PRESCALE
    values = round_to_nearest(GAUSSIAN / scales) * scales
    assert mean_square(values - GAUSSIAN) == pytest.approx(QUARTET["RTN AbsMax"], rel=0.02)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("even", 1.251e-2), ("floor", 1.320e-2), ("rceil", 1.333e-2), ("ceil", 2.078e-2)],
)
def test_our_rules_on_the_same_numbers(rule, expected):
    """AMD's rule is the best of the four for a normal distribution, and better than Quartet's."""
    error = fake_quantize(GAUSSIAN, 1, Operand(scale_rule=rule)) - GAUSSIAN
    assert mean_square(error) == pytest.approx(expected, rel=0.01)


# --- scale, dead zone, grid (arXiv 2605.20402) ---------------------------------------------


def split_error(values, operand):
    """The error as what the power of two, the dead zone and the grid add to it.

    With a scale that is free to be amax / 6, what is left is rounding: to zero in the dead zone,
    to a neighbour elsewhere. What changes when that scale becomes a power of two is the scale's.
    The paper's abstract names the three parts; that they are cut so is our reading.
    """
    grouped = values.view(-1, 32)
    ideal = grouped.abs().amax(1, keepdim=True) / E2M1_MAX
    free = (round_to_nearest(grouped / ideal) * ideal).view(values.shape)
    scale = fake_quantize(values, 1, operand) - free
    rounding = free - values
    is_dead = (free == 0) & (values != 0)
    return scale, rounding.where(is_dead, 0.0), rounding.where(~is_dead, 0.0)


@pytest.mark.parametrize("rule", ScaleRule)
def test_the_three_parts_of_the_error_add_up(rule):
    operand = Operand(scale_rule=rule)
    values = GAUSSIAN[:4096]
    error = (fake_quantize(values, 1, operand) - values).double()
    parts = [part.double() for part in split_error(values, operand)]
    torch.testing.assert_close(sum(parts), error, rtol=0, atol=2e-6)
    _, dead, grid = parts
    assert float((dead * grid).sum()) == 0  # no value is in both
    shares = [float((part * error).sum() / error.square().sum()) for part in parts]
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    assert all(mean_square(part) > 0 for part in parts)


def test_a_scale_that_is_a_power_of_two_anyway_adds_nothing():
    values = GAUSSIAN[:4096].clone()
    values[:, 0] = 6 * power_of_two(torch.arange(4096, dtype=torch.int32) % 5 + 1)
    for rule in (ScaleRule.EVEN, ScaleRule.FLOOR, ScaleRule.RCEIL):
        operand = Operand(scale_rule=rule)
        scale, *_ = split_error(values, operand)
        assert not scale.any()


def test_the_dead_zone_is_what_became_zero():
    values, operand = GAUSSIAN[:4096], Operand(scale_rule=ScaleRule.RCEIL)
    _, dead, _ = split_error(values, operand)
    quantized = quantize(values, 1, operand)
    vanished = (quantized.elements == 0).view(values.shape) & (values != 0)
    assert (dead != 0).sum() < vanished.sum()  # a larger scale lets more vanish than a free one
    assert (vanished | (dead == 0)).all()
