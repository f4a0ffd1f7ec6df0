"""Coverage of intervals at the n and the skew of `config/small.yaml`: six clusters of each kind.

Six conversations or sessions with some questions each, whose F1 is 0, 1 or something between; six
server starts, whose log times differ by the 0.085 that four runs showed (decision 0037); six
sessions of natural volume, some of which run to their cap.
"""

import math

import numpy as np
import pytest

from blockwise.proportions import (
    FAR_DIFFERENCE,
    share_difference_interval,
    share_interval,
    share_slope_interval,
)
from blockwise.statistics import MIN_CLUSTERS, mean_interval, paired_ratio, size_interval

NUM_SETS = 3000  # a coverage of 95% is then known to 0.4 points: one standard error
SETS = (NUM_SETS, MIN_CLUSTERS)
CLUSTERS = [f"c{number}" for number in range(MIN_CLUSTERS)]
START_SPREAD = 0.085  # of the log of a time, from one server start to the next
PARTIAL = [0.2, 0.29, 0.4, 0.5, 0.67]  # F1 of answers that share some words with the gold
MEAN_OF_RIGHT = (np.mean(PARTIAL) + 1) / 2


def f1_of(rng, num_questions, share, likeness, shape=SETS):
    """F1 of six clusters: a share of answers is right, half of these in part."""
    strength = 1 / likeness - 1
    levels = rng.beta(share * strength, (1 - share) * strength, (*shape, 1))
    scores = np.where(
        rng.random((*shape, num_questions)) < 0.5,
        rng.choice(PARTIAL, (*shape, num_questions)),
        1.0,
    )
    return scores * (rng.random((*shape, num_questions)) < levels)


def told(intervals, truth):
    """How often an interval is printed, is printed and misses, and covers where it is printed."""
    printed = [one for one in intervals if one.low is not None]
    missed = sum(not one.low <= truth <= one.high for one in printed)
    return len(printed) / NUM_SETS, missed / NUM_SETS, 1 - missed / max(len(printed), 1)


def scored(sets, interval_of):
    clusters = [name for name in CLUSTERS for _ in range(sets.shape[2])]
    return [interval_of(one.ravel().tolist(), clusters) for one in sets]


@pytest.mark.parametrize("likeness", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("share", [0.05, 0.15, 0.3, 0.6])
def test_f1_of_six_clusters_of_six_questions(share, likeness):
    sets = f1_of(np.random.default_rng(1), 6, share, likeness)
    _, missed, _ = told(scored(sets, share_interval), share * MEAN_OF_RIGHT)
    assert missed <= 0.07


@pytest.mark.parametrize("likeness", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("num_questions", [2, 6, 12])
@pytest.mark.parametrize("shares", [(0.1, 0.1), (0.3, 0.3), (0.1, 0.3), (0.05, 0.8), (0.02, 0.95)])
def test_a_difference_of_f1_over_six_clusters(shares, num_questions, likeness):
    rng = np.random.default_rng(2)
    one, other = (f1_of(rng, num_questions, share, likeness) for share in shares)
    truth = (shares[0] - shares[1]) * MEAN_OF_RIGHT
    printed, missed, covered = told(scored(one - other, share_difference_interval), truth)
    assert missed <= 0.07
    if printed > 0.95 and abs(truth) < FAR_DIFFERENCE / 2:
        assert 0.93 <= covered <= 0.97


def right_or_not(shares):
    """Differences of 0/1 scores of twelve questions, of clusters that are strongly alike."""
    rng = np.random.default_rng(3)
    one, other = (f1_of(rng, 12, share, 0.3) > 0 for share in shares)
    return one.astype(float) - other


@pytest.mark.parametrize(
    "shares", [(0.02, 0.95), (0.05, 0.8), (0.1, 0.75), (0.3, 0.9), (0.05, 0.5)]
)
def test_a_far_difference_of_0_1_scores_is_hardly_ever_missed(shares):
    found = scored(right_or_not(shares), share_difference_interval)
    assert told(found, shares[0] - shares[1])[1] <= 0.07


def test_t_alone_would_miss_a_far_difference_too_often():
    """Why the interval of a far difference holds every cluster, and of the farthest reaches 1."""
    assert told(scored(right_or_not((0.02, 0.95)), mean_interval), 0.02 - 0.95)[1] > 0.07


def slopes_of(rng, share, likeness, gain=0.2):
    """Slopes of F1 on thousands of tokens over three prompts, six questions in each session."""
    shape = (NUM_SETS, MIN_CLUSTERS, 3)
    tokens = np.exp(rng.normal(np.log([80, 200, 500]), 0.3, shape)) / 1000
    strength = 1 / likeness - 1
    level = rng.beta(share * strength, (1 - share) * strength, (*SETS, 1))
    right = np.clip(level + gain * (tokens - 0.26), 0, 1)[..., None] > rng.random((*shape, 6))
    scores = (right * np.where(rng.random((*shape, 6)) < 0.5, np.mean(PARTIAL), 1)).mean(3)
    centred = tokens - tokens.mean(2, keepdims=True)
    return (centred * scores).sum(2) / (centred**2).sum(2)


@pytest.mark.parametrize("likeness", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("share", [0.05, 0.1, 0.3])
def test_a_slope_of_recall_over_six_sessions(share, likeness):
    slopes = slopes_of(np.random.default_rng(4), share, likeness)
    found = [share_slope_interval(dict(zip(CLUSTERS, one, strict=True))) for one in slopes.tolist()]
    printed, missed, covered = told(found, slopes.mean())
    assert missed <= 0.07
    if printed > 0.95:
        assert 0.93 <= covered <= 0.97


def test_t_alone_would_miss_a_slope_of_a_model_that_is_hardly_ever_right():
    slopes = slopes_of(np.random.default_rng(5), 0.05, 0.3)
    _, missed, _ = told([mean_interval(one, CLUSTERS) for one in slopes.tolist()], slopes.mean())
    assert missed > 0.1


def starts(rng, spike_frac):
    """Log times of one arm on six starts: now and then another process takes its share."""
    spikes = (rng.random(SETS) < spike_frac) * rng.exponential(0.3, SETS)
    return rng.normal(0, START_SPREAD, SETS) + spikes


@pytest.mark.parametrize("spike_frac", [0.0, 0.05, 0.15])
def test_a_speed_up_over_six_server_starts(spike_frac):
    rng = np.random.default_rng(6)
    slow, fast = np.exp(math.log(1.3) + starts(rng, spike_frac)), np.exp(starts(rng, spike_frac))
    found = [
        paired_ratio(*(dict(zip(CLUSTERS, one, strict=True)) for one in pair))
        for pair in zip(slow.tolist(), fast.tolist(), strict=True)
    ]
    printed, missed, _ = told(found, 1.3)
    assert printed == 1
    assert 0.02 <= missed <= 0.07


@pytest.mark.parametrize("spread", [START_SPREAD, 0.2, 0.5])
def test_a_stall_in_seconds_over_six_server_starts(spread):
    walls = 20 * np.exp(np.random.default_rng(7).normal(-(spread**2) / 2, spread, SETS))
    printed, missed, _ = told([size_interval(one, CLUSTERS) for one in walls.tolist()], 20)
    assert missed <= 0.07
    if spread == START_SPREAD:
        assert printed == 1
        assert missed >= 0.03


CAP = math.log(1024)


def log_volumes(rng, shape, tokens, spread, loop_frac):
    """Log of summary lengths; a share of the workers runs in circles to the cap."""
    lengths = np.minimum(rng.normal(math.log(tokens), spread, shape), CAP)
    return np.where(rng.random(shape) < loop_frac, CAP, lengths)


@pytest.mark.parametrize("loop_frac", [0.0, 0.05])  # above 5% the gate says capped
@pytest.mark.parametrize("spread", [0.3, 0.6, 1.0])
def test_a_response_of_log_volume_over_six_sessions(spread, loop_frac):
    """Sessions of one worker each, from 80 to 300 tokens along the ladder."""
    rng = np.random.default_rng(8)
    ends = [(300, spread, loop_frac), (80, spread, loop_frac)]
    own, many = (
        log_volumes(rng, shape, *ends[0]) - log_volumes(rng, shape, *ends[1])
        for shape in (SETS, (400_000,))
    )
    found = [mean_interval(one, CLUSTERS) for one in own.tolist()]
    _, missed, _ = told(found, many.mean())
    assert 0.03 <= missed <= 0.07
