"""Errors of all arms on the operands of layers, batch by batch; only sums are kept of a batch.

What survives averaging is the systematic part of an error. A step averages dW over batches, and
so do we. Products of Fprop and Dgrad have a row a token, and tokens of different batches have
nothing in common: they are averaged over tokens and batches, down to a vector of features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from statistics import fmean
from typing import Literal

import torch
from torch import Tensor

from blockwise.config.recipes import Recipe
from blockwise.errors import ConfigError
from blockwise.mxfp4.arithmetic import Arithmetic
from blockwise.mxfp4.gemm_errors import (
    FLOAT32,
    OperandStatistics,
    ProductErrors,
    operand_statistics,
    part_in,
    product_errors,
)
from blockwise.mxfp4.matrix_statistics import MatrixStatistics, matrix_statistics
from blockwise.mxfp4.operand import Prepare, compiled_prepare, prepare_operand
from blockwise.mxfp4.records import ErrorStatistics, LayerOperand, OperandName

NUM_OPERAND_BATCHES = 2  # shares and kurtosis are of hundreds of thousands of elements a batch
Letter = Literal["F", "D", "W"]
LETTERS: tuple[Letter, ...] = ("F", "D", "W")


@dataclass
class _Batches:
    """What is kept of the batches of one GEMM of one layer, for one arithmetic."""

    product_sum: Tensor
    errors: list[ProductErrors] = field(default_factory=list)
    operands: list[tuple[OperandStatistics, OperandStatistics]] = field(default_factory=list)


class StepErrors:
    """Errors of all arms at one step, batch by batch.

    Args:
        arms: recipes by name; equal parts of them are computed once.
        is_compiled: compile what prepares the operands; the same bits, faster.
    """

    def __init__(self, arms: Mapping[str, Recipe], *, is_compiled: bool) -> None:
        self._parts = {
            letter: {arm: part for arm, recipe in arms.items() if (part := part_in(letter, recipe))}
            for letter in LETTERS
        }
        self._prepare: Prepare = compiled_prepare() if is_compiled else prepare_operand
        self._keys: Mapping[str, Tensor] = {}
        self._with_operands = False
        self._reference_sums: dict[tuple[str, Letter], Tensor] = {}
        self._batches: dict[tuple[str, Letter, Recipe], _Batches] = {}
        self._matrices: dict[tuple[str, OperandName], list[MatrixStatistics]] = {}

    def begin_batch(self, keys: Mapping[str, Tensor], *, with_operands: bool) -> None:
        """What `add` tells from now on is of a new batch.

        Args:
            keys: of each layer, int32 without a dimension; every arm takes the same.
            with_operands: also describe the operands.
        """
        self._keys, self._with_operands = keys, with_operands

    def add(self, layer: str, x: Tensor, w: Tensor, dy: Tensor) -> None:
        """Count one layer of the batch; arguments of `Visit`.

        Raises:
            ConfigError: a product is zero or not finite, or a dimension cannot be grouped.
        """
        if self._with_operands:
            named: dict[OperandName, Tensor] = {"x": x, "w": w, "dy": dy}
            for name, values in named.items():
                self._matrices.setdefault((layer, name), []).append(matrix_statistics(values))
        operands: dict[Letter, tuple[Tensor, Tensor]] = {"F": (x, w), "D": (dy, w), "W": (dy, x)}
        try:
            for letter, pair in operands.items():
                if self._parts[letter]:
                    self._add_gemm(layer, letter, pair)
        except ConfigError as error:
            raise ConfigError(f"{layer}: {error}") from None

    def _add_gemm(self, layer: str, letter: Letter, operands: tuple[Tensor, Tensor]) -> None:
        key = self._keys[layer]
        reference = FLOAT32.product(letter, *operands, key)
        summed = _summed(letter, reference)
        self._reference_sums.setdefault((layer, letter), torch.zeros_like(summed)).add_(summed)
        for part in set(self._parts[letter].values()):
            product = Arithmetic(part, prepare=self._prepare).product(letter, *operands, key)
            new = _Batches(torch.zeros_like(summed))
            batches = self._batches.setdefault((layer, letter, part), new)
            batches.product_sum += _summed(letter, product)
            batches.errors.append(product_errors(product, reference))
            if self._with_operands:
                batches.operands.append(operand_statistics(letter, operands, part, key))

    def rows(self, experiment: str, step: int, layers: Sequence[str]) -> list[ErrorStatistics]:
        """One for every layer, GEMM and arm that does not multiply it in float32."""
        return [
            self._row(experiment, step, layer, letter, arm)
            for layer in layers
            for letter in LETTERS
            for arm in self._parts[letter]
        ]

    def operand_rows(self, experiment: str, step: int, layers: Sequence[str]) -> list[LayerOperand]:
        """One for every layer and operand that was described."""
        return [
            LayerOperand(
                experiment=experiment,
                step=step,
                layer=layer,
                operand=name,
                **{
                    one.name: fmean(getattr(batch, one.name) for batch in batches)
                    for one in fields(MatrixStatistics)
                },
            )
            for (layer, name), batches in self._matrices.items()
            if layer in layers
        ]

    def _row(
        self, experiment: str, step: int, layer: str, letter: Letter, arm: str
    ) -> ErrorStatistics:
        batches = self._batches[layer, letter, self._parts[letter][arm]]
        reference_sum = self._reference_sums[layer, letter]
        sides = list(zip(*batches.operands, strict=True))
        noise = sum(one.error_norm for one in batches.errors)
        return ErrorStatistics(
            experiment=experiment,
            arm=arm,
            step=step,
            layer=layer,
            gemm=letter,
            relative_error=fmean(one.relative_error for one in batches.errors),
            systematic_error=product_errors(batches.product_sum, reference_sum).relative_error,
            cosine=fmean(one.cosine for one in batches.errors),
            shrinkage=fmean(one.shrinkage for one in batches.errors),
            underflow_frac=[_mean([one.underflow_frac for one in side]) for side in sides],
            saturation_frac=[_mean([one.saturation_frac for one in side]) for side in sides],
            kurtosis=[fmean(one.kurtosis for one in side) for side in sides],
            gradient_to_noise=sum(one.reference_norm for one in batches.errors) / noise
            if letter == "W" and noise
            else None,
        )


def _summed(letter: Letter, product: Tensor) -> Tensor:
    """What batches share: all of dW; of the others, whose rows are tokens, the sum over these."""
    return product if letter == "W" else product.sum(0)


def _mean(shares: Sequence[float | None]) -> float | None:
    known = [share for share in shares if share is not None]
    return fmean(known) if known else None
