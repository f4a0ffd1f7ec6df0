"""Rotations are orthogonal and cancel in the product, unless their signs differ."""

import math

import pytest
import torch
from scipy.linalg import hadamard

from blockwise.config.recipes import DeterministicHadamard, RandomizedHadamard
from blockwise.mxfp4 import noise
from blockwise.mxfp4.arithmetic import PLACES
from blockwise.mxfp4.hadamard import rotate
from blockwise.mxfp4.operand import prepare_operand

SIZES = (16, 32)
FP32_NOISE = 1e-6  # of a sum of 64 products, relative to the norm of the result


def key(number):
    return torch.tensor(number, dtype=torch.int32)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def signs_of(size, number=5):
    return noise.signs(key(number), size)


def relative_error(result, expected):
    return float((result - expected).norm() / expected.norm())


def product(letter, left, right):
    """What a GEMM sums, in float64: no rounding of ours hides in it."""
    left_axis, right_axis = (place.axis for place in PLACES[letter])
    left, right = left.double(), right.double()
    return (left if left_axis == 1 else left.T) @ (right.T if right_axis == 1 else right)


def operands_of(letter):
    """A left and a right operand whose summed dimension is 64."""
    return [
        normal(96, 64, seed=side) if place.axis == 1 else normal(64, 96, seed=side)
        for side, place in enumerate(PLACES[letter])
    ]


@pytest.mark.parametrize("size", SIZES)
def test_the_matrix_is_hadamards(size):
    matrix = rotate(torch.eye(size), 1, size)
    assert torch.equal(matrix, torch.tensor(hadamard(size) / math.sqrt(size)).float())
    assert torch.equal(matrix, matrix.T)
    torch.testing.assert_close(matrix @ matrix, torch.eye(size), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("with_signs", [False, True])
def test_a_rotation_is_orthogonal_and_stays_in_its_run(size, with_signs):
    signs = signs_of(size) if with_signs else None
    matrix = rotate(torch.eye(64), 1, size, signs)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(64), rtol=0, atol=1e-6)
    run = torch.arange(64) // size
    assert torch.equal(matrix != 0, run[:, None] == run)


@pytest.mark.parametrize("size", SIZES)
def test_columns_rotate_as_rows_do(size):
    values = normal(64, 96)
    for signs in (None, signs_of(size)):
        torch.testing.assert_close(
            rotate(values, 0, size, signs), rotate(values.T.contiguous(), 1, size, signs).T
        )


def test_signs_come_before_the_rotation():
    values, signs = normal(32, 64), signs_of(16)
    flipped = values * signs.repeat(4)
    torch.testing.assert_close(rotate(values, 1, 16, signs), rotate(flipped, 1, 16))


def test_a_deterministic_rotation_undoes_itself():
    values = normal(64, 32)
    for axis in (0, 1):
        back = rotate(rotate(values, axis, 16), axis, 16)
        torch.testing.assert_close(back, values, rtol=0, atol=1e-6)


def test_an_outlier_is_spread_over_its_run():
    values = torch.zeros(1, 64)
    values[0, 5] = 8.0
    rotated = rotate(values, 1, 16)
    assert rotated[0, :16].abs().tolist() == [2.0] * 16
    assert rotated[0, 16:].abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_type_stays(dtype):
    values = normal(32, 32).to(dtype)
    assert rotate(values, 0, 16, signs_of(16)).dtype == dtype


ROTATIONS = [
    DeterministicHadamard(kind="dht", size=16),
    DeterministicHadamard(kind="dht", size=32),
    *(
        RandomizedHadamard(kind="rht", size=size, signs=signs)
        for size in SIZES
        for signs in ("fixed", "redrawn")
    ),
]


def rotated_product(letter, rotation, drawn):
    return product(
        letter,
        *(
            prepare_operand(values, place, None, rotation, drawn)
            for values, place in zip(operands_of(letter), PLACES[letter], strict=True)
        ),
    )


@pytest.mark.parametrize("letter", PLACES)
@pytest.mark.parametrize("rotation", ROTATIONS, ids=repr)
def test_a_rotation_cancels_in_every_gemm(letter, rotation):
    result = rotated_product(letter, rotation, key(11))
    assert relative_error(result, product(letter, *operands_of(letter))) < FP32_NOISE


@pytest.mark.parametrize("letter", PLACES)
@pytest.mark.parametrize("size", SIZES)
def test_mismatched_signs_do_not_cancel(letter, size):
    """The negative control: what is left has as much to do with the product as noise."""
    rotation = RandomizedHadamard(kind="rht", size=size, signs="mismatched")
    result = rotated_product(letter, rotation, key(11))
    assert relative_error(result, product(letter, *operands_of(letter))) > 0.5


def test_redrawn_signs_follow_the_key_and_fixed_ones_do_not():
    values = normal(32, 32)

    def rotated(signs, number, side=0):
        rotation = RandomizedHadamard(kind="rht", size=32, signs=signs)
        return prepare_operand(values, PLACES["F"][side], None, rotation, key(number))

    assert not torch.equal(rotated("redrawn", 1), rotated("redrawn", 2))
    assert torch.equal(rotated("redrawn", 1), rotated("redrawn", 1))
    assert torch.equal(rotated("redrawn", 1), rotated("redrawn", 1, side=1))
    assert torch.equal(rotated("fixed", 1), rotated("fixed", 2, side=1))
    assert not torch.equal(rotated("mismatched", 1), rotated("mismatched", 1, side=1))
