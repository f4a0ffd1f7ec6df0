"""Random numbers from a key and a position: uniform, unrelated, the same everywhere.

All keys are fixed, so nothing here can fail by chance; bounds are those of chance.
"""

import pytest
import torch
from scipy import stats

from blockwise.mxfp4 import noise

KEYS = (0, 1, 2, 3, -1, 255, 256, 65536, 2**31 - 1, -(2**31), 20250509, -1640531527)
NUM = 1 << 16
FIVE_SIGMA = 5.0


def key(number):
    return torch.tensor(number, dtype=torch.int32)


def assert_uncorrelated(left, right, what):
    """The correlation of independent samples has a standard deviation of 1 / sqrt(n)."""
    left, right = left.double() - 0.5, right.double() - 0.5
    correlation = (left * right).mean() * 12
    assert abs(correlation) < FIVE_SIGMA / len(left) ** 0.5, (what, float(correlation))


def test_numbers_are_uniform():
    p_values = [stats.kstest(noise.uniform(key(k), NUM).numpy(), "uniform").pvalue for k in KEYS]
    assert min(p_values) > 0.01 / len(KEYS), p_values
    assert max(p_values) < 1 - 0.01 / len(KEYS), p_values  # nor suspiciously even


def test_numbers_are_uniform_in_a_small_matrix():
    """As many numbers as a group has, under many keys."""
    columns = torch.stack([noise.uniform(key(k), 32) for k in range(2000)])
    p_values = [stats.kstest(column, "uniform").pvalue for column in columns.T.numpy()]
    assert min(p_values) > 0.01 / len(p_values)


def test_numbers_stay_below_one_and_reach_zero():
    numbers = torch.cat([noise.uniform(key(k), NUM) for k in KEYS])
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert numbers.min() < 2.0**-16
    assert numbers.max() > 1 - 2.0**-16


@pytest.mark.parametrize("number", KEYS)
def test_positions_are_unrelated(number):
    numbers = noise.uniform(key(number), NUM)
    for lag in (1, 2, 3, 16, 31, 32, 64, 512, 1024, 4096):
        assert_uncorrelated(numbers[:-lag], numbers[lag:], f"lag {lag}")
    pairs = (numbers * 16).long().view(-1, 2)
    counts = torch.bincount(pairs[:, 0] * 16 + pairs[:, 1], minlength=256)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4


def test_keys_are_unrelated():
    reference = noise.uniform(key(12345), NUM)
    others = [12345 + step for step in (1, -1, 2, 32, 1024)]
    others += [12345 ^ (1 << bit) for bit in range(31)]
    for other in others:
        assert_uncorrelated(reference, noise.uniform(key(other), NUM), f"key {other}")


def test_streams_are_unrelated():
    for number in KEYS:
        streams = [noise.subkey(key(number), stream) for stream in range(4)]
        numbers = [noise.uniform(stream, NUM) for stream in (key(number), *streams)]
        for index, left in enumerate(numbers):
            for right in numbers[:index]:
                assert_uncorrelated(left, right, f"streams of {number}")
                assert_uncorrelated(left[:-1], right[1:], f"streams of {number}, lag 1")


def test_subkeys_differ():
    subkeys = {int(noise.subkey(key(k), stream)) for k in range(200) for stream in range(4)}
    assert len(subkeys) == 800


def test_signs_are_balanced():
    """Drawn as rotations draw them: few under each of many keys."""
    drawn = torch.stack([noise.signs(noise.subkey(key(k), 2), 32) for k in range(2000)])
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    limit = FIVE_SIGMA / len(drawn) ** 0.5
    products = (drawn.T @ drawn / len(drawn)).fill_diagonal_(0)
    assert products.abs().max() < limit  # no two positions go together
    assert drawn.mean(0).abs().max() < limit
    counts = torch.bincount((drawn > 0).sum(1), minlength=33).double().numpy()
    expected = stats.binom.pmf(range(33), 32, 0.5) * len(drawn)
    common = expected > 5
    chi_square = ((counts - expected)[common] ** 2 / expected[common]).sum()
    assert stats.chi2.sf(chi_square, common.sum() - 1) > 0.001


def test_a_number_depends_on_key_and_position_alone():
    assert torch.equal(noise.uniform(key(7), 1000)[:10], noise.uniform(key(7), 10))
    assert torch.equal(noise.signs(key(7), 32), noise.signs(key(7), 32))
    assert not torch.equal(noise.uniform(key(7), 10), noise.uniform(key(8), 10))


def test_a_key_comes_from_the_generator():
    generator = torch.Generator().manual_seed(3)
    state = generator.get_state()
    drawn = [noise.draw_key(generator) for _ in range(64)]
    generator.set_state(state)
    assert drawn == [noise.draw_key(generator) for _ in range(64)]
    assert len({int(one) for one in drawn}) == 64
    assert {int(one) < 0 for one in drawn} == {True, False}
    assert all((one.dtype, one.shape) == (torch.int32, ()) for one in drawn)


def test_keys_of_a_training_are_a_function_of_the_moment_and_the_layer():
    """And the same on every machine: these numbers are in checkpoints of nobody."""
    keys = noise.training_keys((0, 3, 1, 0), ["up", "down"])
    assert keys.tolist() == [1350160651, -347086646]
    assert torch.equal(noise.training_keys((0, 3, 1, 0), ["down"])[0], keys[1])


def test_keys_of_neighbouring_moments_are_unrelated():
    moments = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    keys = [noise.training_keys(moment, ["a", "b"])[0] for moment in moments]
    numbers = [noise.uniform(noise.subkey(one, 4), NUM) for one in keys]
    for index, one in enumerate(numbers):
        for other in numbers[:index]:
            assert_uncorrelated(one, other, "moments")


def test_compiled_equals_eager():
    def both(drawn):
        stream = noise.subkey(drawn, 1)
        return noise.uniform(stream, 1000), noise.signs(stream, 32)

    compiled = torch.compile(both)
    for number in KEYS:
        for fast, slow in zip(compiled(key(number)), both(key(number)), strict=True):
            assert torch.equal(fast, slow)
