import math

import numpy as np
import pytest

from blockwise.statistics import MIN_CLUSTERS, mean_interval, paired_ratio

NUM_DRAWS = 6000  # a coverage of 95% is then known to 0.3 points: one standard error


def names(count):
    return [f"c{index}" for index in range(count)]


def by_timing_block(values):
    return dict(zip(names(len(values)), values, strict=True))


def test_repeats_are_averaged_before_clusters():
    interval = mean_interval([1.0, 3.0, 10.0], ["a", "a", "b"])
    assert interval.mean == 6.0  # (2 + 10) / 2, not 14 / 3
    assert (interval.minimum, interval.maximum) == (2.0, 10.0)
    assert (interval.num_clusters, interval.num_values) == (2, 3)


def test_fewer_than_six_clusters_give_a_range_and_no_interval():
    for count in range(1, MIN_CLUSTERS):
        interval = mean_interval([float(value) for value in range(count)], names(count))
        assert interval.low is None
        assert interval.high is None
        assert interval.maximum == count - 1
    assert mean_interval([0.0] * MIN_CLUSTERS, names(MIN_CLUSTERS)).low == 0.0


def test_many_repeats_of_few_clusters_earn_no_interval():
    assert mean_interval([1.0, 2.0] * 50, ["a", "b"] * 50).low is None


def test_interval_agrees_with_a_t_table():
    # Six values 1..6: sd = sqrt(3.5), t(0.975, 5) = 2.5706 from any printed table.
    interval = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], names(6))
    assert interval.high - interval.mean == pytest.approx(2.5706 * math.sqrt(3.5 / 6), rel=1e-4)
    assert interval.mean - interval.low == pytest.approx(interval.high - interval.mean)


def test_order_of_the_input_is_irrelevant():
    values, clusters = [0.1, 0.7, 0.2, 1e9, 0.3, 0.5, 2.0], names(7)
    backwards = mean_interval(values[::-1], clusters[::-1])
    assert mean_interval(values, clusters) == backwards


@pytest.mark.parametrize(
    ("values", "clusters"), [([], []), ([1.0], ["a", "b"]), ([math.nan], ["a"])]
)
def test_values_that_cannot_be_averaged_are_refused(values, clusters):
    with pytest.raises(ValueError, match=r"0 values|longer|not finite"):
        mean_interval(values, clusters)


def coverage(draw_clusters, truth, count):
    hits = 0
    for values, clusters in draw_clusters(np.random.default_rng(count), count):
        interval = mean_interval(values, clusters)
        hits += interval.low <= truth <= interval.high
    return hits / NUM_DRAWS


def normal_repeats(rng, count):
    """Cluster means that differ, with one to three noisy repeats each."""
    sizes = [1 + index % 3 for index in range(count)]
    clusters = [f"c{index}" for index, size in enumerate(sizes) for _ in range(size)]
    for _ in range(NUM_DRAWS):
        level = np.repeat(rng.normal(10.0, 1.0, count), sizes)
        yield list(level + rng.normal(0.0, 0.5, len(level))), clusters


def skewed_walls(rng, count):
    """Wall times with a long right tail: log-normal, coefficient of variation 25%."""
    for walls in np.exp(rng.normal(0.0, 0.25, (NUM_DRAWS, count))):
        yield list(walls), names(count)


def bounded_scores(rng, count):
    """Accuracies: ten questions a cluster, clusters of differing difficulty around one half."""
    for levels in rng.beta(5.0, 5.0, (NUM_DRAWS, count)):
        yield list(rng.binomial(10, levels) / 10), names(count)


@pytest.mark.parametrize("count", [6, 8, 12])
@pytest.mark.parametrize(
    ("draw", "truth"),
    [(normal_repeats, 10.0), (skewed_walls, math.exp(0.25**2 / 2)), (bounded_scores, 0.5)],
)
def test_a_95_percent_interval_covers_95_percent(draw, truth, count):
    assert 0.93 <= coverage(draw, truth, count) <= 0.97


@pytest.mark.parametrize("count", [6, 8, 12])
def test_a_ratio_interval_covers_95_percent(count):
    rng = np.random.default_rng(count)
    hits = 0
    for _ in range(NUM_DRAWS):
        machine = rng.normal(0.0, 0.5, count)  # shared inside a timing block, so it cancels
        slow = np.exp(machine + math.log(1.6) + rng.normal(0.0, 0.1, count))
        fast = np.exp(machine + rng.normal(0.0, 0.1, count))
        ratio = paired_ratio(by_timing_block(slow), by_timing_block(fast))
        hits += ratio.low <= 1.6 <= ratio.high
    assert 0.93 <= hits / NUM_DRAWS <= 0.97


def test_ratios_are_formed_inside_timing_blocks_only():
    ratio = paired_ratio({"a": 8.0, "b": 2.0, "lost": 100.0}, {"a": 2.0, "b": 2.0, "other": 1.0})
    assert ratio.mean == pytest.approx(2.0)  # geometric mean of 4 and 1
    assert (ratio.minimum, ratio.maximum) == (pytest.approx(1.0), pytest.approx(4.0))
    assert ratio.num_values == 2
    assert ratio.low is None


def test_no_shared_timing_block_gives_no_ratio():
    assert paired_ratio({"a": 1.0}, {"b": 1.0}) is None


def test_a_ratio_and_its_reciprocal_say_the_same():
    slow = {name: 3.0 + index for index, name in enumerate(names(7))}
    fast = {name: 2.0 + 0.3 * index for index, name in enumerate(names(7))}
    forth, back = paired_ratio(slow, fast), paired_ratio(fast, slow)
    assert forth.mean == pytest.approx(1 / back.mean)
    assert forth.low == pytest.approx(1 / back.high)


def test_repeats_of_a_ratio_share_their_cluster():
    slow, fast = {"r0": 2.0, "r1": 8.0, "s": 4.0}, {"r0": 1.0, "r1": 1.0, "s": 1.0}
    ratio = paired_ratio(slow, fast, {"r0": "r", "r1": "r", "s": "s"})
    assert (ratio.num_clusters, ratio.num_values) == (2, 3)
    assert ratio.maximum == pytest.approx(4.0)  # geometric mean of the repeats 2 and 8


def test_a_ratio_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"timing block a: 0\.0"):
        paired_ratio({"a": 0.0}, {"a": 1.0})
