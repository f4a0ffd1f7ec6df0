"""The learning rate at the ends of a run and between them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwise.config.mxfp4 import Optimizer
from blockwise.mxfp4.schedule import learning_rate

PEAK = 3e-3


def rates(num_steps, warmup_steps, final_frac=0.1):
    optimizer = Optimizer(
        learning_rate=PEAK, warmup_steps=warmup_steps, final_learning_rate_frac=final_frac
    )
    return [learning_rate(step, optimizer, num_steps) for step in range(num_steps)]


def test_warmup_climbs_in_equal_parts_to_the_peak():
    assert rates(20, warmup_steps=4)[:4] == pytest.approx(
        [PEAK * part / 4 for part in (1, 2, 3, 4)]
    )


def test_cosine_is_halfway_in_the_middle():
    middle = rates(21, warmup_steps=0, final_frac=0.2)[10]
    assert middle == pytest.approx(PEAK * 0.6)


@given(st.integers(2, 60), st.integers(0, 80), st.floats(0, 1))
def test_rises_to_the_peak_then_falls_to_the_final_fraction(num_steps, warmup_steps, final_frac):
    curve = rates(num_steps, warmup_steps, final_frac)
    top = max(warmup_steps - 1, 0)
    rising, falling = curve[: top + 1], curve[top:]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    assert curve[0] > 0
    assert max(curve) <= PEAK
    if top < num_steps - 1:
        assert curve[top] == pytest.approx(PEAK)
        assert curve[-1] == pytest.approx(PEAK * final_frac, abs=1e-12)


@pytest.mark.parametrize("warmup_steps", [10, 40])
def test_warmup_that_fills_the_run_climbs_to_its_end(warmup_steps):
    curve = rates(10, warmup_steps)
    assert curve == pytest.approx([PEAK * (step + 1) / warmup_steps for step in range(10)])


@pytest.mark.parametrize("warmup_steps", [0, 1])
def test_run_of_one_step_uses_the_peak(warmup_steps):
    assert rates(1, warmup_steps) == [PEAK]
