"""Ratios of means: Fieller's interval covers what it promises, and is open where it must be."""

import numpy as np
import pytest

from blockwise.fieller import ratio_of_means


def pairs(above, below):
    return ({str(seed): value for seed, value in enumerate(one)} for one in (above, below))


def test_the_ratio_of_means_is_no_mean_of_ratios():
    found = ratio_of_means(*pairs([1, 2, 3, 1, 2, 3], [2, 4, 6, 4, 6, 2]))
    assert found.mean == pytest.approx(0.5)
    assert found.low < 0.5 < found.high
    assert found.num_clusters == 6


def test_without_spread_the_interval_is_the_ratio():
    found = ratio_of_means(*pairs([1.0] * 6, [2.0] * 6))
    assert (found.low, found.high) == (pytest.approx(0.5), pytest.approx(0.5))


def test_a_denominator_that_may_be_zero_bounds_nothing():
    found = ratio_of_means(*pairs([1.0] * 6, [-1, 1.5, -1, 1.5, -1, 1.5]))
    assert (found.low, found.high) == (None, None)
    assert ratio_of_means(*pairs([1.0, 2.0], [1.0, -1.0])) is None


def test_below_six_pairs_and_without_any_there_is_no_interval():
    found = ratio_of_means(*pairs([1.0, 1.1, 1.2], [2.0, 2.1, 2.0]))
    assert (found.low, found.high) == (None, None)
    assert ratio_of_means({"0": 1.0}, {"1": 1.0}) is None


def test_the_interval_covers_correlated_pairs():
    rng = np.random.default_rng(0)
    num, hits = 2000, 0
    for _ in range(num):
        shared = rng.normal(size=6)
        below = 1 + 0.3 * shared + 0.1 * rng.normal(size=6)
        above = 0.4 + 0.2 * shared + 0.1 * rng.normal(size=6)
        found = ratio_of_means(*pairs(above, below))
        hits += found.low is None or found.low <= 0.4 <= found.high
    assert 0.93 <= hits / num <= 0.97
