"""A minute before a long training: does the converted model train at all, and with fresh noise?

Each fault that is looked for here has been met, and each was silent: gradients of zero, one key
for all layers or for all micro-batches, and a forward pass that is computed again with other
numbers than at first.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from blockwise.errors import ConfigError
from blockwise.mxfp4.conversion import Conversion

Gradients = Mapping[str, Tensor]


def check_conversion(mx: Conversion, loss_of: Callable[[], Tensor]) -> None:
    """Take two micro-batches, one of them twice; no gradient and no key is left behind.

    Args:
        mx: the converted layers.
        loss_of: the loss of one and the same micro-batch, without randomness of its own
            (dropout off).

    Raises:
        ConfigError: what is wrong, with the layer's name.
    """
    (keys, first), (other_keys, second), (_, again) = (
        _taken(mx, micro_batch, loss_of) for micro_batch in (0, 1, 0)
    )
    for name, gradient in first.items():
        if not gradient.isfinite().all() or not gradient.any():
            what = "zero everywhere" if gradient.isfinite().all() else "not finite"
            raise ConfigError(
                f"{name}: the gradient of the weight is {what}; nothing would be trained there. "
                "Try mx.exact() to see whether the model or the quantization is the cause"
            )
    changed = [name for name in first if not torch.equal(first[name], again[name])]
    if changed:
        raise ConfigError(
            f"{changed[0]}: the same micro-batch gave two gradients; what is computed again would "
            "not be what it was. Turn dropout off, or look for other randomness in the model"
        )
    if mx.recipe is None or not mx.recipe.random_letters:
        return
    drawn = [*keys.values(), *other_keys.values()]
    if len(set(drawn)) < len(drawn):
        raise ConfigError(
            f"{len(drawn)} keys of {len(keys)} layers and 2 micro-batches are only "
            f"{len(set(drawn))} different ones; errors that should average out would add up"
        )
    if all(torch.equal(first[name], second[name]) for name in first):
        raise ConfigError(
            "another micro-batch of the step rounds with the same random numbers; the layers do "
            "not take the keys of mx.step"
        )


def _taken(
    mx: Conversion, micro_batch: int, loss_of: Callable[[], Tensor]
) -> tuple[dict[str, int], Gradients]:
    """Keys and gradients of the weights that are trained."""
    weights = {name: layer.weight for name, layer in mx.layers.items()}
    trained = {name: weight for name, weight in weights.items() if weight.requires_grad}
    with mx.step(0, micro_batch):
        keys = {name: int(layer.key) for name, layer in mx.layers.items() if layer.key is not None}
        found = torch.autograd.grad(loss_of(), list(trained.values()), allow_unused=True)
    pairs = zip(trained.items(), found, strict=True)
    return keys, {
        name: torch.zeros_like(weight) if gradient is None else gradient
        for (name, weight), gradient in pairs
    }
