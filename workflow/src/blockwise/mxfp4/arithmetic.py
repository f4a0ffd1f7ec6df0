"""How the three GEMMs of a linear layer multiply: by a recipe, emulated or native."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from blockwise.config.recipes import (
    GROUP_SIZE,
    GroupShape,
    Operand,
    Precision,
    Recipe,
    Rotation,
    Rounding,
)
from blockwise.errors import ConfigError
from blockwise.mxfp4 import native, noise
from blockwise.mxfp4.fp8 import compiled_fp8, fake_quantize_fp8
from blockwise.mxfp4.operand import (
    Place,
    Prepare,
    compiled_prepare,
    mean_over,
    prepare_operand,
    transform_operand,
)
from blockwise.mxfp4.packed import pack
from blockwise.mxfp4.quantize import product_factor

Backend = Literal["emulated", "native"]
Tokens = Literal["refuse", "pad"]
Operands = tuple[tuple[str, Operand | None], tuple[str, Operand | None]]
Use = tuple[str, int]
"""One use of a matrix: the letter of a GEMM, and its side there."""
PLACES = {
    letter: (Place(gemm, 0, left), Place(gemm, 1, right))
    for gemm, (letter, left, right) in enumerate([("F", 1, 1), ("D", 1, 0), ("W", 0, 0)])
}
"""The operands of each GEMM and the dimension it sums over: X and W, dY and W, dY and X."""
GRADIENT_SIDES = {"F": (), "D": (0,), "W": (0,)}
"""Which operands of a GEMM are gradients."""
USES: dict[str, tuple[Use, Use]] = {
    "x": (("F", 0), ("W", 1)),
    "w": (("F", 1), ("D", 1)),
    "dy": (("D", 0), ("W", 0)),
}
"""Where each matrix is an operand."""
REORDERED = (Precision.FP32_REORDERED, Precision.FP8_REORDERED)
"""Sums are taken from the last value to the first."""
FP8_TYPES = {False: torch.float8_e4m3fn, True: torch.float8_e5m2}  # the latter for gradients


@dataclass(frozen=True)
class Arithmetic:
    """How a converted layer multiplies.

    `tokens` says what becomes of tokens that are no multiple of 32 where they share scales: they
    are refused, or zeros are added for the product's duration, which changes nothing in it.
    `shared` names the matrices that both of their GEMMs take in the same form: they are prepared
    once.
    """

    recipe: Recipe
    backend: Backend = "emulated"
    prepare: Prepare = prepare_operand
    tokens: Tokens = "refuse"
    random_letters: str = field(init=False, repr=False, compare=False)
    groups_tokens: bool = field(init=False, repr=False, compare=False)
    is_rotated: bool = field(init=False, repr=False, compare=False)
    shared: frozenset[str] = field(init=False, repr=False, compare=False)
    _gemms: dict[str, tuple[Rotation | None, Operands, float]] = field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        # Read once, not once a product, and here: what is found lazily cannot be compiled.
        gemms = {
            letter: (
                gemm.rotation,
                gemm.operands,
                product_factor(operand for _, operand in gemm.operands),
            )
            for letter, gemm in self.recipe.gemms.items()
        }
        object.__setattr__(self, "_gemms", gemms)
        for name in ("random_letters", "groups_tokens", "is_rotated"):
            object.__setattr__(self, name, getattr(self.recipe, name))
        shared = frozenset(name for name, uses in USES.items() if self._is_shared(uses))
        object.__setattr__(self, "shared", shared)

    def product(self, letter: str, left: Tensor, right: Tensor, key: Tensor) -> Tensor:
        """One GEMM: the sum of two matrices, in their type.

        Raises:
            ConfigError: the summed dimension cannot be grouped.
        """
        prepared = (self.operand((letter, 0), left, key), self.operand((letter, 1), right, key))
        return self.multiply(letter, prepared, (left, right), key)

    def operand(self, use: Use, values: Tensor, key: Tensor) -> Tensor:
        """A matrix as a GEMM multiplies it; native GEMMs prepare theirs themselves.

        Raises:
            ConfigError: the summed dimension cannot be grouped.
        """
        letter, side = use
        if letter in self._gemms:
            rotation, named, _ = self._gemms[letter]
            place, (name, operand) = PLACES[letter][side], named[side]
            if self.tokens == "refuse":
                _check_groups(letter, name, values.shape, place, operand)
            if self.backend == "native":
                return values
            return self.prepare(values, place, operand, rotation, key)
        if self.recipe.precision == Precision.BF16:
            return values.to(torch.bfloat16)
        if self.recipe.precision in (Precision.FP8, Precision.FP8_REORDERED):
            narrow = fake_quantize_fp8 if self.prepare is prepare_operand else compiled_fp8
            values = narrow(values, FP8_TYPES[side in GRADIENT_SIDES[letter]])
        if self.recipe.precision in REORDERED:
            values = values.flip(PLACES[letter][side].axis)
        return values

    def multiply(
        self, letter: str, prepared: tuple[Tensor, Tensor], raw: tuple[Tensor, Tensor], key: Tensor
    ) -> Tensor:
        """The GEMM of prepared operands; `raw` is what they were made of."""
        left, right = raw
        if letter not in self._gemms:
            return _summed(letter, *prepared).to(left.dtype)
        _, named, factor = self._gemms[letter]
        if self.backend == "native":
            product = self._native_product(letter, raw, key)
        else:
            product = _summed(letter, *prepared)
        product = product if factor == 1 else product * factor
        if any(operand is not None and operand.centred for _, operand in named):
            return _with_means(product, letter, left, right)
        return product

    def _is_shared(self, uses: tuple[Use, Use]) -> bool:
        """Whether two GEMMs take the same prepared matrix.

        One scale a tensor, or one for 32 x 32 values, does not depend on the dimension that is
        summed. Random numbers do: each GEMM has its own. Zeros that fill up tokens stand in the
        product that sums over them, and in no other.
        """
        if self.recipe.precision in REORDERED:  # turned along what is summed
            return False
        if self.recipe.precision != Precision.MXFP4:
            return True
        if self.backend == "native" or not all(letter in self._gemms for letter, _ in uses):
            return False
        gemms = [self._gemms[letter] for letter, _ in uses]
        if any(rotation is not None or _is_centred(named) for rotation, named, _ in gemms):
            return False
        one, other = (self._gemms[letter][1][side][1] for letter, side in uses)
        if one is None or one != other or (self.tokens == "pad" and uses != USES["w"]):
            return False
        return one.groups == GroupShape.SQUARE and one.rounding == Rounding.RTNE

    def _native_product(self, letter: str, raw: tuple[Tensor, Tensor], key: Tensor) -> Tensor:
        rotation, named, _ = self._gemms[letter]
        packed = []
        for values, place, (_, operand) in zip(raw, PLACES[letter], named, strict=True):
            assert operand is not None  # refused when the model was converted
            turned = transform_operand(values, place, operand, rotation, key)
            rows = turned if place.axis == 1 else turned.T.contiguous()
            packed.append(pack(rows, operand, noise.subkey(key, place.rounding_stream)))
        product = native.matmul(packed[0], packed[1], raw[0].dtype)
        sizes = (one.shape[1 - place.axis] for one, place in zip(raw, PLACES[letter], strict=True))
        num_rows, num_columns = sizes
        return product[:num_rows, :num_columns]


def arithmetic_of(
    recipe: Recipe,
    *,
    backend: Backend = "emulated",
    is_compiled: bool = False,
    tokens: Tokens = "refuse",
) -> Arithmetic:
    """How to multiply by a recipe; arguments as of `conversion.convert`."""
    return Arithmetic(
        recipe, backend, compiled_prepare() if is_compiled else prepare_operand, tokens
    )


def _summed(letter: str, left: Tensor, right: Tensor) -> Tensor:
    left_place, right_place = PLACES[letter]
    return (left if left_place.axis == 1 else left.T) @ (
        right.T if right_place.axis == 1 else right
    )


def _with_means(product: Tensor, letter: str, left: Tensor, right: Tensor) -> Tensor:
    """The product of centred operands and the one of their means, which has rank 1.

    One centred operand is enough for the mixed products to vanish, so this is right for one
    and for two.
    """
    left_place, right_place = PLACES[letter]
    num_summed = left.shape[left_place.axis]
    rows, columns = mean_over(left, left_place), mean_over(right, right_place)
    means = rows.reshape(-1, 1) * (num_summed * columns.reshape(1, -1))
    return (product.to(torch.float32) + means).to(product.dtype)


def _is_centred(named: Operands) -> bool:
    return any(operand is not None and operand.centred for _, operand in named)


def _check_groups(
    letter: str, name: str, shape: Sequence[int], place: Place, operand: Operand | None
) -> None:
    """Refuse a matrix whose grouped dimensions are no multiples of 32."""
    is_square = operand is not None and operand.groups == GroupShape.SQUARE
    for axis, num in enumerate(shape):
        if num % GROUP_SIZE and (is_square or axis == place.axis):
            raise ConfigError(
                f"{letter}:{name} has the shape {list(shape)}, and its dimension of {num} "
                f"cannot be grouped by {GROUP_SIZE}; make it a multiple, or leave the GEMM out"
                f"{', or set groups: 1d' if is_square else ''}"
            )


def check_features(num_in: int, num_out: int, recipe: Recipe) -> None:
    """Refuse what no number of tokens can mend.

    Raises:
        ConfigError: a recipe that cannot group a layer's features.
    """
    num_tokens = GROUP_SIZE
    shapes = {"x": (num_tokens, num_in), "w": (num_out, num_in), "dy": (num_tokens, num_out)}
    for letter, gemm in recipe.gemms.items():
        for place, (name, operand) in zip(PLACES[letter], gemm.operands, strict=True):
            _check_groups(letter, name, shapes[name], place, operand)


def check_native(device: torch.device, recipe: Recipe) -> None:
    """Refuse to multiply natively where it cannot be done.

    Raises:
        ConfigError: the device, the build of torch or the recipe.
    """
    for letter, gemm in recipe.gemms.items():
        for name, operand in gemm.operands:
            if operand is None:
                raise ConfigError(
                    f"backend native multiplies packed MXFP4 only, and {letter}:{name} is not "
                    "quantized; use the emulated backend for this recipe"
                )
    native.check_device(device)
    native.check_gemm(device)
