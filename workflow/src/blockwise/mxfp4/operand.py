"""One operand of one GEMM: centred, rotated, then quantized; the work that is compiled.

Compiling this alone, and not the whole training step, takes seconds instead of minutes, is
shared by all layers and arms, and removes nearly all of the emulation's cost
(workflow/docs/decisions/0015-compile-what-prepares-an-operand.md).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from blockwise.config.recipes import (
    GROUP_SIZE,
    GroupShape,
    Operand,
    RandomizedHadamard,
    Rotation,
    Rounding,
)
from blockwise.mxfp4 import noise
from blockwise.mxfp4.hadamard import rotate
from blockwise.mxfp4.quantize import fake_quantize

FIXED_SIGNS_KEY = 20250509  # any constant: signs that are fixed are the same in every run
NUM_SIDES = 2
NUM_ROUNDING_STREAMS = 3 * NUM_SIDES  # one for each operand of a layer; the ones above draw signs
MAX_GRAPHS = 64  # a graph for each recipe of an operand; torch stops at 8 unless told


@dataclass(frozen=True)
class Place:
    """Where an operand stands."""

    gemm: int  # 0 Fprop, 1 Dgrad, 2 Wgrad
    side: int  # 0 left, 1 right
    axis: int  # dimension of the operand that the GEMM sums over

    @property
    def rounding_stream(self) -> int:
        """Which random numbers of a layer's key round this operand: its own."""
        return NUM_SIDES * self.gemm + self.side

    def signs_stream(self, *, is_matched: bool) -> int:
        """Which random numbers give the signs: those of the GEMM, or the operand's own."""
        stream = NUM_SIDES * self.gemm + (0 if is_matched else self.side)
        return NUM_ROUNDING_STREAMS + stream


Prepare = Callable[[Tensor, Place, Operand | None, Rotation | None, Tensor], Tensor]
"""`prepare_operand`, compiled or not."""


def prepare_operand(
    values: Tensor, place: Place, operand: Operand | None, rotation: Rotation | None, key: Tensor
) -> Tensor:
    """Centre, rotate and fake-quantize one operand of a GEMM, as its recipe says.

    Args:
        values: the operand, a matrix.
        place: where it stands in the product.
        operand: how it is quantized; None: not at all.
        rotation: along the summed dimension; None for none.
        key: int32 key of the layer at this step, without a dimension.

    Returns:
        A matrix of the same shape and type; zeros fill the summed dimension up to whole groups.
    """
    turned = transform_operand(values, place, operand, rotation, key)
    if operand is None:
        return turned
    if operand.rounding == Rounding.RTNE:  # one graph for all places: it takes no numbers
        quantized = fake_quantize(turned, place.axis, operand)
    else:
        subkey = noise.subkey(key, place.rounding_stream)
        quantized = fake_quantize(turned, place.axis, operand, subkey)
    if operand.groups == GroupShape.ROW:
        return quantized
    return quantized.narrow(1 - place.axis, 0, values.shape[1 - place.axis])


def transform_operand(
    values: Tensor, place: Place, operand: Operand | None, rotation: Rotation | None, key: Tensor
) -> Tensor:
    """What is rounded: `prepare_operand` without its last step."""
    if operand is not None and operand.centred:
        centred = values.to(torch.float32) - mean_over(values, place)
        values = centred.to(values.dtype)
    return rotate_operand(_padded(values, place, operand), place, rotation, key)


def _padded(values: Tensor, place: Place, operand: Operand | None) -> Tensor:
    """Zeros at the end of the grouped dimensions, up to whole groups: they add nothing.

    They come after the mean is taken out, which is one over the values that there are.
    """
    is_square = operand is not None and operand.groups == GroupShape.SQUARE
    rows, columns = (
        -num % GROUP_SIZE if is_square or axis == place.axis else 0
        for axis, num in enumerate(values.shape)
    )
    return functional.pad(values, (0, columns, 0, rows)) if rows or columns else values


def mean_over(values: Tensor, place: Place) -> Tensor:
    """Mean over the dimension that the GEMM sums over, which stays as one of 1; float32.

    That of nothing is 0: an expert may get no token.
    """
    total = values.sum(place.axis, keepdim=True, dtype=torch.float32)
    return total / max(values.shape[place.axis], 1)


def rotate_operand(values: Tensor, place: Place, rotation: Rotation | None, key: Tensor) -> Tensor:
    """The rotation alone, in the arguments of `prepare_operand`."""
    if rotation is None:
        return values
    signs = None
    if isinstance(rotation, RandomizedHadamard):
        drawn = torch.full_like(key, FIXED_SIGNS_KEY) if rotation.signs == "fixed" else key
        stream = place.signs_stream(is_matched=rotation.signs != "mismatched")
        signs = noise.signs(noise.subkey(drawn, stream), rotation.size)
    return rotate(values, place.axis, rotation.size, signs)


def compiled_prepare() -> Prepare:
    """`prepare_operand`, compiled once a recipe and not a shape; equal to it bit for bit."""
    return _prepare_compiled


def _prepare_compiled(
    values: Tensor, place: Place, operand: Operand | None, rotation: Rotation | None, key: Tensor
) -> Tensor:
    """A function of the module, so that a layer that holds it can be saved."""
    if torch.compiler.is_compiling():  # inside a compiled model it is compiled with the rest
        return prepare_operand(values, place, operand, rotation, key)
    return _compiled()(values, place, operand, rotation, key)


@cache
def _compiled() -> Prepare:
    compiled: Prepare = torch.compile(  # type: ignore[call-overload]  # torch's types lack it
        prepare_operand, dynamic=True, recompile_limit=MAX_GRAPHS
    )
    return compiled
