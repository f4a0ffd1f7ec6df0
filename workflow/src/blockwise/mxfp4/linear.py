"""`MXFP4Linear`: a linear layer whose three GEMMs are quantized each by its own recipe.

The layer is an ordinary `nn.Linear` with other products: `convert` swaps the linears of any
model for it, and with a recipe that quantizes nothing it computes what `nn.Linear` computes.
Random numbers follow from a key that `draw_keys` renews before every step, so that a step can
be compiled, repeated and resumed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from blockwise.config.recipes import GROUP_SIZE, GroupShape, Operand, Precision, Recipe, Rotation
from blockwise.errors import ConfigError
from blockwise.mxfp4 import native, noise
from blockwise.mxfp4.fp8 import fake_quantize_fp8
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
Operands = tuple[tuple[str, Operand | None], tuple[str, Operand | None]]
PLACES = {
    letter: (Place(gemm, 0, left), Place(gemm, 1, right))
    for gemm, (letter, left, right) in enumerate([("F", 1, 1), ("D", 1, 0), ("W", 0, 0)])
}
"""The operands of each GEMM and the dimension it sums over: X and W, dY and W, dY and X."""
GRADIENT_SIDES = {"F": (), "D": (0,), "W": (0,)}
"""Which operands of a GEMM are gradients."""


@dataclass(frozen=True)
class Arithmetic:
    """How a converted layer multiplies."""

    recipe: Recipe
    backend: Backend = "emulated"
    prepare: Prepare = prepare_operand

    def product(self, letter: str, left: Tensor, right: Tensor, key: Tensor) -> Tensor:
        """One GEMM: the sum of two matrices, in their type.

        Raises:
            ConfigError: the summed dimension cannot be grouped.
        """
        if letter in self._gemms:
            return self._quantized_product(letter, left, right, key)
        dtype = left.dtype
        if self.recipe.precision == Precision.BF16:
            left, right = left.to(torch.bfloat16), right.to(torch.bfloat16)
        if self.recipe.precision in (Precision.FP8, Precision.FP8_REORDERED):
            left, right = (
                fake_quantize_fp8(values, _fp8_type(side in GRADIENT_SIDES[letter]))
                for side, values in enumerate((left, right))
            )
        if self.recipe.precision == Precision.FP8_REORDERED:
            left, right = (
                values.flip(place.axis)
                for values, place in zip((left, right), PLACES[letter], strict=True)
            )
        return _summed(letter, left, right).to(dtype)

    @cached_property
    def _gemms(self) -> dict[str, tuple[Rotation | None, Operands, float]]:
        """Rotation, operands and factor of each quantized GEMM: read once, not once a product."""
        return {
            letter: (
                gemm.rotation,
                gemm.operands,
                product_factor(operand for _, operand in gemm.operands),
            )
            for letter, gemm in self.recipe.gemms.items()
        }

    def _quantized_product(self, letter: str, left: Tensor, right: Tensor, key: Tensor) -> Tensor:
        rotation, named, factor = self._gemms[letter]
        is_centred = any(operand is not None and operand.centred for _, operand in named)
        operands = []
        for values, place, (name, operand) in zip(
            (left, right), PLACES[letter], named, strict=True
        ):
            _check_groups(letter, name, values.shape, place, operand)
            operands.append((values, place, operand))
        if self.backend == "emulated":
            prepared = (
                self.prepare(values, place, operand, rotation, key)
                for values, place, operand in operands
            )
            product = _summed(letter, *prepared)
            product = product if factor == 1 else product * factor
            return _with_means(product, letter, left, right) if is_centred else product
        packed = []
        for values, place, operand in operands:
            assert operand is not None  # refused when the model was converted
            turned = transform_operand(values, place, operand, rotation, key)
            rows = turned if place.axis == 1 else turned.T.contiguous()
            packed.append(pack(rows, operand, noise.subkey(key, place.rounding_stream)))
        product = native.matmul(packed[0], packed[1], left.dtype) * factor
        return _with_means(product, letter, left, right) if is_centred else product


class _LinearFunction(torch.autograd.Function):
    """y = x w^T with the GEMMs of an `Arithmetic`; x [tokens, in], w [out, in]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, key: Tensor, how: Arithmetic) -> Tensor:
        ctx.save_for_backward(x, weight, key)
        ctx.how = how
        return how.product("F", x, weight, key)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight, key = ctx.saved_tensors
        dy = gradients[0].contiguous()
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        dx = ctx.how.product("D", dy, weight, key) if needs_x else None
        dw = ctx.how.product("W", dy, x, key) if needs_weight else None
        return dx, dw, None, None


class MXFP4Linear(nn.Linear):
    """A linear layer, [*, in_features] -> [*, out_features], with the GEMMs of a recipe."""

    how: Arithmetic
    noise_key: Tensor

    @classmethod
    def from_linear(cls, linear: nn.Linear, how: Arithmetic) -> "MXFP4Linear":
        """A layer with the same parameters.

        Raises:
            ConfigError: a dimension that the recipe cannot group.
        """
        check_features(linear.in_features, linear.out_features, how.recipe)
        has_bias = linear.bias is not None
        layer = cls(linear.in_features, linear.out_features, bias=has_bias, device="meta")
        layer.weight, layer.bias = linear.weight, linear.bias
        layer.how = how
        key = torch.zeros((), dtype=torch.int32, device=linear.weight.device)
        layer.register_buffer("noise_key", key, persistent=False)
        return layer

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output, in autocast's type where autocast is on."""
        x, weight = input, self.weight
        device = x.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            x, weight = x.to(dtype), weight.to(dtype)
        with torch.autocast(device, enabled=False):
            flat = x.reshape(-1, x.shape[-1])
            y: Tensor = _LinearFunction.apply(  # type: ignore[no-untyped-call]  # torch has none
                flat, weight, self.noise_key, self.how
            )
        y = y.view(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias.to(y.dtype)


def convert(
    model: nn.Module,
    recipe: Recipe,
    *,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    backend: Backend = "emulated",
    is_compiled: bool = False,
) -> list[str]:
    """Swap linears of a model, in place, for ones with a recipe.

    Args:
        model: any module; parameters stay the same objects.
        recipe: what the swapped layers quantize.
        include: shell patterns of module names, e.g. `layers.*`.
        exclude: likewise; they win.
        backend: `native` needs hardware with MXFP4 GEMMs.
        is_compiled: compile what prepares the operands.

    Returns:
        Names of the swapped layers.

    Raises:
        ConfigError: nothing matches, a dimension that cannot be grouped, or no native hardware.
    """
    linears = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if type(module) is nn.Linear
        and any(fnmatchcase(name, pattern) for pattern in include)
        and not any(fnmatchcase(name, pattern) for pattern in exclude)
    }
    if not linears:
        raise ConfigError(
            f"no linear layer matches include {list(include)} and exclude {list(exclude)}; name "
            "modules as model.named_modules() does"
        )
    if backend == "native":
        check_native(next(model.parameters()).device, recipe)
    how = Arithmetic(recipe, backend, compiled_prepare() if is_compiled else prepare_operand)
    converted: dict[nn.Linear, MXFP4Linear] = {}  # a layer that stands in two places stays one
    for name, linear in linears.items():
        try:
            converted.setdefault(linear, MXFP4Linear.from_linear(linear, how))
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from None
    for name, linear in linears.items():
        model.set_submodule(name, converted[linear])
    return list(linears)


def converted_layers(model: nn.Module) -> list[MXFP4Linear]:
    """The layers that `convert` swapped, each once."""
    return [module for module in model.modules() if isinstance(module, MXFP4Linear)]


def draw_keys(model: nn.Module, generator: torch.Generator, rank: int = 0) -> None:
    """Give every converted layer the random numbers of the next step.

    They are buffers: DistributedDataParallel needs `broadcast_buffers=False`, or every process
    gets those of the first one.

    Args:
        model: with converted layers.
        generator: in the same state in every process.
        rank: number of the process; each rounds its own tokens with its own numbers.
    """
    layers = converted_layers(model)
    for layer, key in zip(layers, noise.draw_keys(generator, len(layers), rank), strict=True):
        layer.noise_key.copy_(key)


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


def _fp8_type(is_gradient: bool) -> torch.dtype:
    return torch.float8_e5m2 if is_gradient else torch.float8_e4m3fn


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
