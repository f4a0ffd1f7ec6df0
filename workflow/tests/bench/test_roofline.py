"""The budget of a fused kernel: by hand, and as the documentation shows it."""

from pathlib import Path

import pytest

from blockwise.bench.roofline import Chip, Product, budget, table

DOCUMENT = Path(__file__).parents[2] / "docs" / "training.md"
CHIP = Chip("chip", fp8_flop_per_s=1e12, fp4_flop_per_s=2e12, bytes_per_s=1e9)


def test_a_product_that_computes_by_hand():
    one = budget(Product("large", 1000, 1000, 1000), CHIP)
    assert one.fp8_s == pytest.approx(4e-3)  # 1 MB an operand and 2 MB of result: memory
    assert one.fp8_cast_s == pytest.approx(6e-3)
    assert one.mxfp4_s == pytest.approx((0.53125 * 2 + 2) * 1e-3)
    assert one.mxfp4_cast_s == pytest.approx(2.53125 * 2e-3)
    assert one.largest_preparation_s == pytest.approx(10e-3 - 3.0625e-3)


def test_arithmetic_bounds_what_memory_does_not():
    fast = Chip("chip", fp8_flop_per_s=1e12, fp4_flop_per_s=2e12, bytes_per_s=1e15)
    one = budget(Product("large", 1000, 1000, 1000), fast)
    assert (one.fp8_s, one.mxfp4_s) == (2e-3, 1e-3)
    assert one.speedup_fused == 2
    assert 1 < one.speedup_apart < 2


def test_the_documentation_shows_what_is_computed():
    assert table() in DOCUMENT.read_text(encoding="utf-8")
