"""What the GEMMs of a linear layer multiply, seen in one forward and backward pass.

A pass shows a layer's input x, its weight w and the gradient dy of its output, and changes
nothing. With these, all three products of any arithmetic can be taken: arms that differ in Wgrad
alone share the whole pass.
"""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

Visit = Callable[[str, Tensor, Tensor, Tensor], None]
"""Told a layer's name and its x [tokens, in], w [out, in] and dy [tokens, out]."""

Forward = Callable[[], tuple[Tensor, Sequence[Tensor]]]
"""Gives the loss and the tensors down to which the backward pass must reach."""


def linear_names(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Linear layers that the patterns name, converted or not."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and any(fnmatchcase(name, one) for one in patterns)
    ]


def visit_operands(model: nn.Module, forward: Forward, layers: Sequence[str], visit: Visit) -> bool:
    """One forward and backward pass that shows the operands of layers and changes nothing.

    Layers come in the order of the backward pass. No gradient is left behind.

    Returns:
        Whether the loss was finite; without that there is no backward pass.
    """

    def watch(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            assert isinstance(module, nn.Linear)
            x, weight = inputs[0].detach(), module.weight.detach()
            output.register_hook(lambda dy: visit(name, _matrix(x), weight, _matrix(dy)))

        return hook

    handles = [model.get_submodule(name).register_forward_hook(watch(name)) for name in layers]
    try:
        loss, leaves = forward()
        if not loss.isfinite():
            return False
        torch.autograd.grad(loss, leaves)
    finally:
        for handle in handles:
            handle.remove()
    return True


def _matrix(values: Tensor) -> Tensor:
    return values.reshape(-1, values.shape[-1]).to(torch.float32)
