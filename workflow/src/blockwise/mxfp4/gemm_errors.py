"""How far the product of a quantized GEMM is from float32's, and what its operands went through.

Everything is a function of matrices: the GEMM's operands, as they were captured in training or
drawn for a test, and the arithmetic of an arm.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from blockwise.config.mxfp4 import is_quantized
from blockwise.config.recipes import Operand, Precision, Recipe, Rotation
from blockwise.errors import ConfigError
from blockwise.mxfp4 import noise
from blockwise.mxfp4.arithmetic import PLACES, Arithmetic
from blockwise.mxfp4.formats import E2M1_MAX
from blockwise.mxfp4.matrix_statistics import kurtosis
from blockwise.mxfp4.operand import Place, transform_operand
from blockwise.mxfp4.quantize import quantize

FLOAT32 = Arithmetic(Recipe(precision=Precision.FP32))
GEMM_FIELDS = {"F": "fprop", "D": "dgrad", "W": "wgrad"}


@dataclass(frozen=True)
class ProductErrors:
    """What one product lost; norms are Frobenius norms.

    `shrinkage` is 1 - <product, reference> / <reference, reference>: 0 where errors average out
    along the reference, 0.01 where the product is one per cent too short. `cosine` is that of
    both; 0 for a product that is zero.
    """

    error_norm: float
    reference_norm: float
    cosine: float
    shrinkage: float

    @property
    def relative_error(self) -> float:
        """|error| / |reference|."""
        return self.error_norm / self.reference_norm


@dataclass(frozen=True)
class OperandStatistics:
    """One operand, as rounded. Shares are of its elements; None: not quantized."""

    kurtosis: float
    underflow_frac: float | None
    saturation_frac: float | None


def part_in(letter: str, recipe: Recipe) -> Recipe | None:
    """What of a recipe acts in one GEMM; None where it multiplies in float32.

    Arms that differ elsewhere have equal parts, so that their common errors are computed once.
    """
    if recipe.precision != Precision.MXFP4:
        return recipe if is_quantized(recipe) else None
    gemm = recipe.gemms.get(letter)
    return None if gemm is None else Recipe.model_validate({GEMM_FIELDS[letter]: gemm})


def product_errors(product: Tensor, reference: Tensor) -> ProductErrors:
    """Errors of a product.

    Args:
        product: as an arm computes it; float32.
        reference: the same product in float32 arithmetic, not zero.

    Raises:
        ConfigError: the reference is zero or not finite.
    """
    reference_norm = _norm(reference)
    if not 0 < reference_norm < math.inf:
        raise ConfigError(
            f"a float32 product has the norm {reference_norm}, and errors are measured against a "
            "finite one above 0; measure at another step or on other layers"
        )
    error = product - reference
    product_norm = _norm(product)
    along = float(torch.dot(product.flatten(), reference.flatten())) / reference_norm
    lost = -float(torch.dot(error.flatten(), reference.flatten())) / reference_norm
    return ProductErrors(
        error_norm=_norm(error),
        reference_norm=reference_norm,
        cosine=along / product_norm if product_norm else 0.0,
        shrinkage=lost / reference_norm,
    )


def operand_statistics(
    letter: str, operands: tuple[Tensor, Tensor], recipe: Recipe, key: Tensor
) -> tuple[OperandStatistics, OperandStatistics]:
    """Statistics of both operands of one GEMM, with the random numbers of its product."""
    gemm = recipe.gemms.get(letter)
    rotation = None if gemm is None else gemm.rotation
    recipes = (None, None) if gemm is None else tuple(operand for _, operand in gemm.operands)
    left, right = (
        _statistics(values, place, operand, rotation, key)
        for values, place, operand in zip(operands, PLACES[letter], recipes, strict=True)
    )
    return left, right


def _statistics(
    values: Tensor, place: Place, operand: Operand | None, rotation: Rotation | None, key: Tensor
) -> OperandStatistics:
    rotated = transform_operand(values, place, operand, rotation, key)
    if operand is None:
        return OperandStatistics(kurtosis(rotated), None, None)
    quantized = quantize(rotated, place.axis, operand, noise.subkey(key, place.rounding_stream))
    num_vanished = rotated.count_nonzero() - quantized.elements.count_nonzero()
    num_saturated = (quantized.scaled.abs() > E2M1_MAX).sum()
    return OperandStatistics(
        kurtosis=kurtosis(rotated),
        underflow_frac=int(num_vanished) / rotated.numel(),
        saturation_frac=int(num_saturated) / rotated.numel(),
    )


def _norm(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values))
