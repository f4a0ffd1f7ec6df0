"""Intervals of scores: what they cover where they are printed, and where they are not."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm, t

from blockwise.proportions import (
    FAR_DIFFERENCE,
    MIN_DIFFERING_CLUSTERS,
    share_difference_interval,
    share_interval,
    share_slope_interval,
)
from blockwise.statistics import MIN_CLUSTERS

NUM_SETS = 2000  # a coverage of 95% is then known to 0.5 points: one standard error


def answers_of(rng, num_clusters, num_questions, share, likeness):
    """0/1 answers; of one cluster they are alike as an intraclass correlation says."""
    strength = 1 / likeness - 1
    levels = rng.beta(share * strength, (1 - share) * strength, (NUM_SETS, num_clusters, 1))
    return rng.random((NUM_SETS, num_clusters, num_questions)) < levels


def counted(answers, truth, interval_of=share_interval):
    """Over all sets, how often an interval is printed, and how often one misses the truth."""
    _, num_clusters, num_questions = answers.shape
    clusters = [f"c{index}" for index in range(num_clusters) for _ in range(num_questions)]
    printed = missed = 0
    for one in answers.reshape(len(answers), -1).astype(float).tolist():
        interval = interval_of(one, clusters)
        if interval.low is not None:
            printed += 1
            missed += not interval.low <= truth <= interval.high
    return printed, missed


@pytest.mark.parametrize("likeness", [0.02, 0.1])
@pytest.mark.parametrize(("num_clusters", "num_questions"), [(6, 10), (8, 10), (12, 5), (20, 10)])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_an_interval_of_a_share_covers_95_percent(share, num_clusters, num_questions, likeness):
    rng = np.random.default_rng(num_clusters)
    answers = answers_of(rng, num_clusters, num_questions, share, likeness)
    printed, missed = counted(answers, share)
    assert printed > 0.85 * NUM_SETS
    assert 0.93 <= 1 - missed / printed <= 0.97


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.9, 0.98])
@pytest.mark.parametrize(("num_clusters", "num_questions"), [(6, 10), (12, 30)])
def test_a_share_near_0_or_1_is_hardly_ever_missed_by_a_printed_interval(
    share, num_clusters, num_questions
):
    answers = answers_of(np.random.default_rng(2), num_clusters, num_questions, share, 0.1)
    _, missed = counted(answers, share)
    assert missed <= 0.07 * NUM_SETS


def test_partial_scores_are_covered_too():
    rng = np.random.default_rng(3)
    scores = answers_of(rng, 8, 10, 0.5, 0.1) * rng.choice([0.4, 0.67, 1.0], (NUM_SETS, 8, 10))
    printed, missed = counted(scores, 0.5 * (0.4 + 0.67 + 1) / 3)
    assert 0.93 <= 1 - missed / printed <= 0.97


@pytest.mark.parametrize("shares", [(0.5, 0.6), (0.2, 0.3), (0.1, 0.2), (0.02, 0.5)])
@pytest.mark.parametrize("num_clusters", [6, 12])
def test_an_interval_of_a_difference_of_shares_covers_95_percent(shares, num_clusters):
    rng = np.random.default_rng(num_clusters)
    one, other = (answers_of(rng, num_clusters, 10, share, 0.1).astype(float) for share in shares)
    printed, missed = counted(one - other, shares[0] - shares[1], share_difference_interval)
    assert printed > 0.5 * NUM_SETS
    assert missed <= 0.07 * NUM_SETS
    if printed > 0.97 * NUM_SETS and shares[1] - shares[0] < FAR_DIFFERENCE:
        assert 0.93 <= 1 - missed / printed <= 0.97


def test_many_clusters_that_are_no_more_alike_than_chance_give_wilson_s_interval():
    """By the closed form, whose quantile is the normal one, on the effective number of answers."""
    scores = [float(index % 4 == 0) for index in range(400)]
    clusters = [f"c{index}" for index in range(400)]
    interval = share_interval(scores, clusters)
    ours = binomtest(100, 400).proportion_ci(0.95, "wilson")
    # The clusters' spread has the divisor n - 1, Student's quantile is 0.3% longer.
    assert interval.low == pytest.approx(ours.low, abs=5e-4)
    assert interval.high == pytest.approx(ours.high, abs=5e-4)
    assert t.ppf(0.975, 399) == pytest.approx(norm.ppf(0.975), rel=4e-3)


@pytest.mark.parametrize(
    "right", [[0] * 6, [10] * 6, [5] * 6, [0, 0, 0, 0, 0, 3], [10, 10, 10, 10, 9, 10]]
)
def test_too_little_on_one_side_and_clusters_that_agree_earn_no_interval(right):
    scores = [float(index < number) for number in right for index in range(10)]
    clusters = [f"c{index}" for index in range(6) for _ in range(10)]
    interval = share_interval(scores, clusters)
    assert (interval.low, interval.high) == (None, None)
    assert interval.mean == pytest.approx(sum(right) / 60)


def test_few_clusters_earn_none_and_what_is_no_score_is_refused():
    names = [f"c{index}" for index in range(MIN_CLUSTERS - 1)]
    assert share_interval([0.2, 0.4, 0.5, 0.6, 0.8], names).low is None
    with pytest.raises(ValueError, match=r"1\.5 is no score"):
        share_interval([1.5], ["a"])


def test_differences_that_few_clusters_show_earn_no_interval():
    clusters = [f"c{index}" for index in range(8)]
    showing = MIN_DIFFERING_CLUSTERS - 1
    few = [0.1 + index / 50 for index in range(showing)] + [0.0] * (8 - showing)
    assert share_difference_interval(few, clusters).low is None
    assert share_difference_interval([*few[:showing], 0.3, *few[showing + 1 :]], clusters).low > 0


def test_the_interval_of_a_far_difference_holds_every_cluster():
    clusters = [f"c{index}" for index in range(MIN_CLUSTERS)]
    far = share_difference_interval([0.6, 0.6, 0.6, 0.6, 0.6, 0.1], clusters)
    assert far.low == 0.1
    assert far.high > 0.6
    farthest = share_difference_interval([-0.9, -0.91, -0.92, -0.93, -0.94, -0.95], clusters)
    assert (farthest.low, farthest.high) == (-1.0, -0.7)
    near = share_difference_interval([0.4, 0.4, 0.4, 0.4, 0.4, -0.3], clusters)
    assert near.low > -0.3


def test_slopes_that_few_clusters_have_earn_no_interval():
    showing = MIN_DIFFERING_CLUSTERS - 1
    few = {f"c{index}": 0.1 + index / 50 if index < showing else 0.0 for index in range(8)}
    assert share_slope_interval(few).low is None
    assert share_slope_interval({**few, "c7": 0.3}).low is not None
