"""Gradients of a model's linear weights in several arithmetics, averaged over micro-batches.

Arms that differ in Wgrad alone have the same forward pass and the same Dgrad, so they see the
same x and dy: one pass serves them all, and each takes its own dW from it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from blockwise.config.recipes import Recipe
from blockwise.mxfp4.arithmetic import Arithmetic
from blockwise.mxfp4.gemm_errors import FLOAT32, part_in
from blockwise.mxfp4.layer_operands import Forward, visit_operands
from blockwise.mxfp4.linear import MXFP4Linear
from blockwise.mxfp4.operand import Prepare, compiled_prepare, prepare_operand

Gradient = Mapping[str, Tensor]
"""dW of each layer, [out, in]."""


@dataclass(frozen=True)
class MicroBatch:
    """One pass: what gives its loss, and the random numbers of each layer."""

    forward: Forward
    keys: Mapping[str, Tensor]


@dataclass
class Averaged:
    """What the micro-batches of an arm gave."""

    gradient: dict[str, Tensor]
    losses: list[float] = field(default_factory=list)


class GradientSource:
    """A model whose linear layers multiply as they are told, pass by pass.

    Args:
        model: its layers are turned once into ones that multiply in float32.
        layers: names of those that quantize.
        is_compiled: compile what prepares the operands; the same bits, faster.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str], *, is_compiled: bool) -> None:
        self.model, self.layers = model, list(layers)
        self._prepare: Prepare = compiled_prepare() if is_compiled else prepare_operand
        self._linears = {name: _turned(model.get_submodule(name)) for name in self.layers}

    def averaged(
        self,
        shared: Recipe,
        arms: Mapping[str, Recipe],
        micro_batches: Sequence[MicroBatch],
        report: Callable[[], None],
    ) -> dict[str, Averaged]:
        """Every arm's gradient, averaged over micro-batches.

        Args:
            shared: what forward pass and Dgrad do.
            arms: recipes with this pass.
            micro_batches: at least one; each weighs the same.
            report: called after each.

        Returns:
            What each arm gives; an arm whose loss is not finite is left out.
        """
        hows = {
            arm: Arithmetic(part_in("W", recipe) or FLOAT32.recipe, prepare=self._prepare)
            for arm, recipe in arms.items()
        }
        found = {arm: Averaged({}) for arm in arms}
        self._multiply_as(Arithmetic(shared, prepare=self._prepare))
        try:
            for batch in micro_batches:
                if not self._add(batch, hows, found):
                    return {}
                report()
        finally:
            self._multiply_as(FLOAT32)
        for one in found.values():
            for total in one.gradient.values():
                total.div_(len(micro_batches))
        return found

    def _add(
        self, batch: MicroBatch, hows: Mapping[str, Arithmetic], found: Mapping[str, Averaged]
    ) -> bool:
        def visit(layer: str, x: Tensor, _: Tensor, dy: Tensor) -> None:
            for arm, how in hows.items():
                product = how.product("W", dy, x, batch.keys[layer])
                gradient = found[arm].gradient
                if layer in gradient:
                    gradient[layer] += product
                else:
                    gradient[layer] = product

        losses: list[float] = []

        def forward() -> tuple[Tensor, Sequence[Tensor]]:
            loss, leaves = batch.forward()
            losses.append(float(loss.detach()))
            return loss, leaves

        self._give_keys(batch.keys)
        if not visit_operands(self.model, forward, self.layers, visit):
            return False
        for one in found.values():
            one.losses += losses
        return True

    def _multiply_as(self, how: Arithmetic) -> None:
        for layer in self._linears.values():
            layer.how = how

    def _give_keys(self, keys: Mapping[str, Tensor]) -> None:
        for name, layer in self._linears.items():
            layer.key = keys[name]


def _turned(layer: nn.Module) -> MXFP4Linear:
    """The layer itself, which multiplies in float32 and can be told otherwise."""
    assert isinstance(layer, nn.Linear)
    return layer if isinstance(layer, MXFP4Linear) else MXFP4Linear.made_of(layer, FLOAT32)


@dataclass(frozen=True)
class Weights:
    """Weights that can be moved along a direction and put back; nothing else of a model moves.

    Args:
        parameters: by layer.
        start: what they were; a copy.
    """

    parameters: Mapping[str, Tensor]
    start: Mapping[str, Tensor]

    @classmethod
    def of(cls, model: nn.Module, layers: Sequence[str]) -> "Weights":
        """The weights of some layers of a model."""
        parameters = {}
        for layer in layers:
            weight = model.get_submodule(layer).weight
            assert isinstance(weight, Tensor)
            parameters[layer] = weight
        return cls(parameters, {name: one.detach().clone() for name, one in parameters.items()})

    def norm(self) -> float:
        """Of all weights together."""
        return norm(self.start)

    def num(self) -> int:
        """How many numbers they are."""
        return sum(one.numel() for one in self.start.values())

    @torch.no_grad()
    def step(self, gradient: Gradient, length: float, *, is_signed: bool = False) -> None:
        """Go from the start against a gradient, or against its signs, by a length.

        Raises:
            ValueError: the gradient is zero or not finite.
        """
        size = self._num_nonzero(gradient) ** 0.5 if is_signed else norm(gradient)
        if not 0 < size < float("inf"):
            raise ValueError(f"a gradient of the norm {size} has no direction")
        for name, weight in self.parameters.items():
            direction = gradient[name].sign() if is_signed else gradient[name]
            torch.add(self.start[name], direction, alpha=-length / size, out=weight.data)

    @torch.no_grad()
    def restore(self) -> None:
        """Go back to the start, to the last bit."""
        for name, weight in self.parameters.items():
            weight.copy_(self.start[name])

    def _num_nonzero(self, gradient: Gradient) -> int:
        return sum(int(one.count_nonzero()) for one in gradient.values())


def norm(gradient: Gradient) -> float:
    """Of all layers together."""
    return math.sqrt(dot(gradient, gradient))


def dot(one: Gradient, other: Gradient) -> float:
    """Inner product over all layers, summed in float64 from layer to layer."""
    return sum(float(torch.dot(one[name].flatten(), other[name].flatten())) for name in one)
