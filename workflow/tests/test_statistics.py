import math

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import ttest_ind, ttest_rel

from blockwise.statistics import (
    MIN_CLUSTERS,
    MIN_REPEATS,
    PROVEN_CV,
    PROVEN_SIMILARITIES,
    coefficient_of_variation,
    cv_interval,
    independent_difference,
    mean_interval,
    paired_difference,
    paired_ratio,
    pairwise_mean_interval,
    size_interval,
)

NUM_DRAWS = 6000  # a coverage of 95% is then known to 0.3 points: one standard error
NUM_REPEAT_DRAWS = 2000  # to 0.5 points


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


@pytest.mark.parametrize("count", [6, 8, 12])
@pytest.mark.parametrize(
    ("draw", "truth"),
    [(normal_repeats, 10.0), (skewed_walls, math.exp(0.25**2 / 2))],
)
def test_a_95_percent_interval_covers_95_percent(draw, truth, count):
    assert 0.93 <= coverage(draw, truth, count) <= 0.97


@pytest.mark.parametrize("cv", [0.1, 0.35, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("count", [6, 12])
def test_sizes_too_skewed_for_student_are_hardly_ever_missed_by_a_printed_interval(cv, count):
    sigma = math.sqrt(math.log(1 + cv**2))
    sizes = np.random.default_rng(count).lognormal(-(sigma**2) / 2, sigma, (NUM_DRAWS, count))
    printed = missed = 0
    for one in sizes.tolist():
        interval = size_interval(one, names(count))
        if interval.low is not None:
            printed += 1
            missed += not interval.low <= 1.0 <= interval.high
    assert missed <= 0.07 * NUM_DRAWS
    if cv == 0.1:
        assert printed == NUM_DRAWS
        assert missed >= 0.03 * NUM_DRAWS


def test_sizes_that_agree_have_an_interval_and_those_far_apart_have_none():
    same = size_interval([384.0] * MIN_CLUSTERS, names(MIN_CLUSTERS))
    assert (same.low, same.high) == (384.0, 384.0)
    apart = [float(10**index) for index in range(MIN_CLUSTERS)]
    assert size_interval(apart, names(MIN_CLUSTERS)).low is None
    assert mean_interval(apart, names(MIN_CLUSTERS)).low is not None


def disturbed(rng, count):
    """Log times of one arm: now and then another process takes its share of the machine."""
    spikes = (rng.random((NUM_DRAWS, count)) < 0.05) * rng.exponential(0.3, (NUM_DRAWS, count))
    return rng.normal(0.0, 0.1, (NUM_DRAWS, count)) + spikes


def calm(rng, count):
    return rng.normal(0.0, 0.1, (NUM_DRAWS, count))


@pytest.mark.parametrize("noise", [calm, disturbed])
@pytest.mark.parametrize("count", [6, 7, 12])  # 7: the rounds of mxfp4_speed
def test_a_ratio_interval_covers_95_percent(count, noise):
    rng = np.random.default_rng(count)
    machine = rng.normal(0.0, 0.5, (NUM_DRAWS, count))  # shared inside a timing block
    slow = np.exp(machine + math.log(1.6) + noise(rng, count))
    fast = np.exp(machine + noise(rng, count))
    hits = 0
    for own, other in zip(slow.tolist(), fast.tolist(), strict=True):
        ratio = paired_ratio(by_timing_block(own), by_timing_block(other))
        hits += ratio.low <= 1.6 <= ratio.high
    assert 0.93 <= hits / NUM_DRAWS <= 0.97


def test_a_bootstrap_of_clusters_would_cover_too_little():
    """Why Student's t stands in its place: percentile bootstrap, six clusters (decision 0022)."""
    rng = np.random.default_rng(22)
    clusters = rng.normal(0.0, 1.0, (NUM_REPEAT_DRAWS, MIN_CLUSTERS))
    drawn = rng.integers(MIN_CLUSTERS, size=(500, MIN_CLUSTERS))
    low, high = np.percentile(clusters[:, drawn].mean(axis=2), [2.5, 97.5], axis=1)
    assert np.mean((low <= 0) & (high >= 0)) < 0.9


def test_a_censored_mean_keeps_a_bound_that_holds():
    """Tokens to a target: seeds beyond the horizon count with it, and the upper end is open."""
    rng = np.random.default_rng(5)
    needed = rng.lognormal(0.0, 0.3, (NUM_DRAWS, MIN_CLUSTERS))
    truth = math.exp(0.3**2 / 2)
    for horizon, largest in ((2.2, 0.97), (1.4, 1.0)):  # censors 0.4% and 13% of the seeds
        seen = np.minimum(needed, horizon)
        hits = 0
        for one in seen.tolist():
            interval = mean_interval(one, names(MIN_CLUSTERS))
            is_open = max(one) == horizon
            hits += interval.low <= truth and (is_open or truth <= interval.high)
        assert 0.93 <= hits / NUM_DRAWS <= largest


def paired_arms(rng, count, effect, noise):
    """Losses of two arms whose seeds differ far more than the arms do."""
    seeds = rng.normal(3.0, 0.5, (NUM_DRAWS, count))
    reference = seeds + noise(rng, (NUM_DRAWS, count))
    own = seeds + effect + noise(rng, (NUM_DRAWS, count))
    return zip(own.tolist(), reference.tolist(), strict=True)


def normal_noise(rng, shape):
    return rng.normal(0.0, 0.02, shape)


def skewed_noise(rng, shape):
    """A loss is bounded below and not above: some seeds end far worse than the rest."""
    return 0.02 * np.exp(rng.normal(0.0, 0.5, shape))


@pytest.mark.parametrize("count", [6, 8, 12])
@pytest.mark.parametrize("noise", [normal_noise, skewed_noise])
def test_an_interval_of_a_paired_difference_covers_95_percent(count, noise):
    hits = excludes_zero = 0
    for own, reference in paired_arms(np.random.default_rng(count), count, 0.025, noise):
        interval = paired_difference(by_timing_block(own), by_timing_block(reference)).interval
        hits += interval.low <= 0.025 <= interval.high
        excludes_zero += interval.low > 0
    assert 0.93 <= hits / NUM_DRAWS <= 0.97
    assert excludes_zero / NUM_DRAWS > 0.2  # the seeds' own spread of 0.5 has cancelled


def test_a_paired_difference_agrees_with_the_paired_t_test():
    own, reference = [3.1, 2.9, 3.4, 3.0, 3.3, 3.6, 3.2], [3.0, 2.9, 3.1, 3.05, 3.1, 3.2, 3.1]
    difference = paired_difference(by_timing_block(own), by_timing_block(reference))
    assert difference.t == pytest.approx(ttest_rel(own, reference).statistic)
    backwards = paired_difference(by_timing_block(reference), by_timing_block(own))
    assert backwards.t == -difference.t
    assert backwards.interval.low == -difference.interval.high


def test_differences_are_formed_inside_shared_clusters_only():
    difference = paired_difference({"a": 3.0, "b": 5.0, "lost": 9.0}, {"a": 1.0, "b": 4.0})
    assert difference.interval.mean == 1.5
    assert (difference.interval.minimum, difference.interval.maximum) == (1.0, 2.0)
    assert difference.interval.num_clusters == 2
    assert (difference.interval.low, difference.interval.high, difference.t) == (None, None, None)
    assert paired_difference({"a": 1.0}, {"b": 1.0}) is None


def test_equal_differences_have_no_t_statistic():
    same = by_timing_block([1.0] * MIN_CLUSTERS)
    difference = paired_difference(same, same)
    assert (difference.interval.low, difference.interval.high, difference.t) == (0.0, 0.0, None)


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


def test_coefficient_of_variation_by_hand():
    assert coefficient_of_variation([1.0, 2.0, 3.0]) == pytest.approx(0.5)  # sd 1 over mean 2


@pytest.mark.parametrize("values", [[], [1.0], [1.0, -1.0], [1.0, math.inf], [0.0, 0.0]])
def test_sizes_without_a_coefficient_of_variation_are_refused(values):
    with pytest.raises(ValueError, match=r"at least 2|no size|all values are zero"):
        cv_interval(values)


def test_fewer_than_ten_repeats_give_no_interval():
    lengths = [float(10 + index) for index in range(MIN_REPEATS)]
    vectors = 0.7 + np.random.default_rng(0).normal(size=(MIN_REPEATS, 3))
    for interval_of, repeats in ((cv_interval, lengths), (similarity_interval, vectors)):
        few, enough = interval_of(repeats[:-1]), interval_of(repeats)
        assert (few.low, few.high, few.num_repeats) == (None, None, MIN_REPEATS - 1)
        assert enough.low < enough.value < enough.high


@pytest.mark.parametrize("num_others", [0, 1])
def test_repeats_that_do_not_differ_bound_nothing(num_others):
    same = MIN_REPEATS - num_others
    lengths = cv_interval([64.0] * same + [60.0] * num_others)
    texts = similarity_interval([[1.0, 0.0]] * same + [[0.0, 1.0]] * num_others)
    for interval in (lengths, texts):
        assert (interval.low, interval.high) == (None, None)
    assert texts.value == pytest.approx(1.0 - num_others * 2 / MIN_REPEATS)
    assert (lengths.value == 0.0) == (num_others == 0)


def test_repeats_that_hardly_bound_the_spread_leave_it_open_above():
    interval = cv_interval([64.0] * (MIN_REPEATS - 2) + [63.0, 24.0])
    assert interval.value < PROVEN_CV
    assert interval.low > 0
    assert interval.high is None


def test_order_of_the_repeats_is_irrelevant():
    rng = np.random.default_rng(1)
    lengths, vectors = list(rng.lognormal(size=MIN_REPEATS)), rng.normal(size=(MIN_REPEATS, 4))
    similarities = cosines(vectors).tolist()
    backwards = [row[::-1] for row in similarities[::-1]]
    assert cv_interval(lengths[::-1]) == cv_interval(lengths)
    assert pairwise_mean_interval(backwards) == pairwise_mean_interval(similarities)


def test_mean_similarity_counts_each_pair_once_and_no_repeat_with_itself():
    interval = pairwise_mean_interval([[1.0, 0.2, 0.4], [0.2, 1.0, 0.9], [0.4, 0.9, 1.0]])
    assert interval.value == pytest.approx(0.5)
    assert interval.num_repeats == 3


@pytest.mark.parametrize(
    "similarities", [[[1.0]], [[1.0, 0.5], [0.5]], [[1.0, math.nan], [math.nan, 1.0]], [[1, 2]] * 2]
)
def test_what_is_no_similarity_matrix_is_refused(similarities):
    with pytest.raises(ValueError, match=r"at least 2|row 1 has 1|no similarity"):
        pairwise_mean_interval(similarities)


def lengths_of(rng, num_sets, cv, capped_frac):
    """Log-normal output lengths of a given CV; a cap cuts off the longest share of them."""
    sigma = math.sqrt(math.log(1 + cv**2))
    cap = math.inf if capped_frac == 0 else math.exp(sigma * ndtri(1 - capped_frac))
    return np.minimum(np.exp(rng.normal(0.0, sigma, (num_sets, MIN_REPEATS))), cap)


@pytest.mark.parametrize("capped_frac", [0.0, 0.1, 0.25])
@pytest.mark.parametrize("cv", [0.1, 0.3, 0.5, 0.6])
def test_an_interval_of_the_variation_covers_95_percent(cv, capped_frac):
    rng = np.random.default_rng(7)
    everything = lengths_of(rng, 50_000, cv, capped_frac)
    truth = everything.std() / everything.mean()
    hits = 0
    for lengths in lengths_of(rng, NUM_REPEAT_DRAWS, cv, capped_frac):
        interval = cv_interval(lengths.tolist())
        hits += interval.low <= truth <= (math.inf if interval.high is None else interval.high)
    assert 0.93 <= hits / NUM_REPEAT_DRAWS <= 0.97


@pytest.mark.parametrize("cv", [0.85, 1.2, 1.7])  # the paper's 84.5% and 171.6% among them
def test_a_variation_beyond_what_repeats_show_is_hardly_ever_missed(cv):
    hits = num_open = 0
    for lengths in lengths_of(np.random.default_rng(8), NUM_REPEAT_DRAWS, cv, 0.0).tolist():
        interval = cv_interval(lengths)
        num_open += interval.high is None
        hits += interval.low <= cv and (interval.high is None or cv <= interval.high)
    assert hits / NUM_REPEAT_DRAWS >= 0.93
    assert num_open > 0.8 * NUM_REPEAT_DRAWS


def embeddings(rng, num_sets, noise, unevenness):
    """Unit vectors around a common direction, some repeats further off than others."""
    num_dimensions = 64  # what topic and wording leave free of an embedding's some hundred
    shape = (num_sets, MIN_REPEATS, num_dimensions)
    distance = noise * np.exp(unevenness * rng.normal(size=(*shape[:2], 1)))
    vectors = distance * rng.normal(size=shape) / math.sqrt(num_dimensions)
    vectors[..., 0] += 1.0
    return vectors


def word_counts(rng, num_sets, words_each, _):
    """Counts over a vocabulary in which few words are common, as TF-IDF sees summaries."""
    rates = words_each / np.arange(1, 81)
    return rng.poisson(rates, (num_sets, MIN_REPEATS, len(rates))) + 1e-9


def cosines(vectors):
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.minimum(unit @ np.swapaxes(unit, -1, -2), 1.0)


def similarity_interval(vectors):
    return pairwise_mean_interval(cosines(np.asarray(vectors)).tolist())


def mean_cosine(vectors):
    """Mean cosine of different repeats over all sets together, from the length of their sum."""
    unit = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).reshape(
        -1, vectors.shape[-1]
    )
    return (np.sum(unit.sum(axis=0) ** 2) / len(unit) - 1) / (len(unit) - 1)


@pytest.mark.parametrize(
    ("draw", "spread", "unevenness"),
    [
        (embeddings, 0.4, 0.5),  # mean cosine 0.8
        (embeddings, 0.7, 0.0),  # 0.7
        (embeddings, 1.0, 0.3),  # 0.5
        (embeddings, 1.4, 0.3),  # 0.3
        (word_counts, 2.0, None),
        (word_counts, 8.0, None),
    ],
)
def test_an_interval_of_similarity_covers_95_percent(draw, spread, unevenness):
    rng = np.random.default_rng(11)
    truth = mean_cosine(draw(rng, 5000, spread, unevenness))
    hits = 0
    least, most = PROVEN_SIMILARITIES
    printed = 0
    for similarities in cosines(draw(rng, NUM_REPEAT_DRAWS, spread, unevenness)).tolist():
        interval = pairwise_mean_interval(similarities)
        assert (interval.high is None) == (not least <= interval.value <= most)
        if interval.high is not None:
            printed += 1
            hits += (-math.inf if interval.low is None else interval.low) <= truth <= interval.high
    assert 0.93 <= hits / printed <= 0.97


def test_texts_that_share_hardly_a_word_earn_no_interval():
    """As summaries of random weights: jackknife intervals there would cover 98%."""
    counts = np.random.default_rng(12).poisson(40 / 4096, (MIN_REPEATS, 4096)) + 1e-9
    interval = similarity_interval(counts)
    assert interval.value < PROVEN_SIMILARITIES[0]
    assert (interval.low, interval.high) == (None, None)


def test_independent_means_are_compared_as_welch_does():
    own, other = [1.0, 2.5, 3.0, 4.0, 5.5, 6.0, 2.0], [2.0, 2.1, 2.2, 1.9, 2.3, 2.0]
    found = independent_difference(
        mean_interval(own, names(len(own))), mean_interval(other, names(len(other)))
    )
    expected = ttest_ind(own, other, equal_var=False).confidence_interval()
    assert found == pytest.approx((np.mean(own) - np.mean(other), expected.low, expected.high))
    few = mean_interval([1.0, 2.0], names(2))
    assert independent_difference(few, few) is None
    flat = mean_interval([2.0] * 6, names(6))
    assert independent_difference(flat, flat) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("spread", [1.0, 4.0])
@pytest.mark.parametrize("count", [6, 12])
def test_an_interval_between_two_runs_covers_95_percent(count, spread):
    rng = np.random.default_rng(count)
    hits = 0
    for _ in range(NUM_REPEAT_DRAWS):
        one, other = (
            mean_interval(list(rng.normal(mean, deviation, count)), names(count))
            for mean, deviation in ((3.0, 1.0), (1.0, spread))
        )
        _, low, high = independent_difference(one, other)
        hits += low <= 2.0 <= high
    assert 0.93 <= hits / NUM_REPEAT_DRAWS <= 0.97
