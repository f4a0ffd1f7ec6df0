"""`MXFP4Linear`: a linear layer whose three GEMMs are quantized each by its own recipe.

The layer is an ordinary `nn.Linear` with other products; with a recipe that quantizes nothing it
computes what `nn.Linear` computes. A layer becomes one in place (`blockwise.mxfp4.conversion`), so
that its hooks, its mode and whoever else holds it stay. Random numbers follow from a key that
the conversion gives each layer for one micro-batch: without one a recipe that needs it refuses.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.distributed.tensor import DTensor

from blockwise.config.recipes import GROUP_SIZE, Precision
from blockwise.errors import ConfigError
from blockwise.mxfp4 import distributed
from blockwise.mxfp4.arithmetic import Arithmetic


class _LinearFunction(torch.autograd.Function):
    """y = x w^T with the GEMMs of an `Arithmetic`; x [tokens, in], w [out, in].

    What two GEMMs share is prepared once and kept in place of the matrix, except a weight that
    many processes share: it is gathered again, and must not be kept.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, key: Tensor, how: Arithmetic) -> Tensor:
        prepared = (how.operand(("F", 0), x, key), how.operand(("F", 1), weight, key))
        ctx.keeps_x = "x" in how.shared
        ctx.keeps_weight = "w" in how.shared and distributed.num_processes() == 1
        kept_x = prepared[0] if ctx.keeps_x else x
        kept_weight = prepared[1] if ctx.keeps_weight else weight
        ctx.save_for_backward(kept_x, kept_weight, key)
        ctx.how, ctx.first_key, ctx.dtypes = how, key, (x.dtype, weight.dtype)
        return how.multiply("F", prepared, (x, weight), key)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight, key = ctx.saved_tensors
        how: Arithmetic = ctx.how
        if not torch.compiler.is_compiling():
            _check_backward(how, key, ctx.first_key)
        dy = gradients[0].contiguous()
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        left = right = dx = dw = None
        if needs_x:
            left = how.operand(("D", 0), dy, key)
            right = weight if ctx.keeps_weight else how.operand(("D", 1), weight, key)
            dx = how.multiply("D", (left, right), (dy, weight), key).to(ctx.dtypes[0])
        if needs_weight:
            if left is None or "dy" not in how.shared:
                left = how.operand(("W", 0), dy, key)
            right = x if ctx.keeps_x else how.operand(("W", 1), x, key)
            dw = how.multiply("W", (left, right), (dy, x), key).to(ctx.dtypes[1])
        return dx, dw, None, None


class MXFP4Linear(nn.Linear):
    """A linear layer, [*, in_features] -> [*, out_features], with the GEMMs of a recipe."""

    how: Arithmetic
    key: Tensor | None = None  # of the present micro-batch
    is_exact = False

    @staticmethod
    def made_of(linear: nn.Linear, how: Arithmetic) -> "MXFP4Linear":
        """The layer itself, which multiplies so from here on."""
        layer: nn.Module = linear
        layer.__class__ = MXFP4Linear
        assert isinstance(layer, MXFP4Linear)
        layer.how = how
        return layer

    def revert(self) -> None:
        """Be a plain linear layer again."""
        for name in ("how", "key", "is_exact"):
            self.__dict__.pop(name, None)
        self.__class__ = nn.Linear  # type: ignore[assignment]  # a layer is what it multiplies as

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output, in autocast's type where autocast is on.

        Raises:
            ConfigError: no key where the recipe needs one, tokens that cannot be grouped, or a
                way to call it that has no meaning for a quantized layer.
        """
        if self.is_exact:
            return super().forward(input)
        x, weight = input, self.weight
        device = x.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            x, weight = x.to(dtype), weight.to(dtype)
        flat = x.reshape(-1, x.shape[-1])
        key = self._checked_key(flat)
        with torch.autocast(device, enabled=False):
            y: Tensor = _LinearFunction.apply(  # type: ignore[no-untyped-call]  # torch has none
                flat, weight, key, self.how
            )
        y = y if self.bias is None else y + self.bias.to(y.dtype)
        return y.view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Sizes and recipe."""
        arithmetic = "exact" if self.is_exact else self.how.recipe.name
        return f"{super().extra_repr()}, recipe={arithmetic}"

    def _checked_key(self, x: Tensor) -> Tensor:
        """The key, or any number where the recipe draws none."""
        how, key = self.how, self.key
        is_trained = torch.is_grad_enabled()
        if isinstance(self.weight, DTensor) and (how.random_letters or how.is_rotated):
            raise ConfigError(
                f"the recipe {how.recipe.name} draws random numbers or rotates, and this layer's "
                "weight is a DTensor (tensor parallelism), for which neither is defined; use a "
                "recipe without them, or FSDP2"
            )
        if is_trained and how.tokens == "refuse" and how.groups_tokens:
            self._check_tokens(len(x))
        if not torch.compiler.is_compiling():
            _check_mode(x)
        if key is not None:
            return key
        missing = [one for one in how.random_letters if is_trained or one == "F"]
        if missing:
            raise ConfigError(
                f"the recipe {how.recipe.name} draws random numbers in {'+'.join(missing)} and has "
                "no key here; run forward and backward pass inside `with mx.step(number):`, or "
                "evaluate inside `with mx.exact():`"
            )
        return torch.zeros((), dtype=torch.int32, device=x.device)

    def _check_tokens(self, num_tokens: int) -> None:
        is_needed = "W" not in self.how.recipe.gemms or self.weight.requires_grad
        if num_tokens % GROUP_SIZE and is_needed:
            raise ConfigError(
                f"{num_tokens} tokens, and the recipe {self.how.recipe.name} groups tokens by "
                f"{GROUP_SIZE}; make them a multiple, or convert with tokens='pad', which adds "
                "zeros that change nothing in the product"
            )


def _check_mode(x: Tensor) -> None:
    """Refuse ways to differentiate that would need GEMMs of their own."""
    is_dual = forward_ad._current_level >= 0 and forward_ad.unpack_dual(x).tangent is not None
    if is_dual or torch._C._functorch.peek_interpreter_stack() is not None:
        raise ConfigError(
            "forward-mode differentiation and the transforms of torch.func (grad, vmap, jvp) are "
            "not defined for a quantized layer; use backward(), or `with mx.exact():`"
        )


def _check_backward(how: Arithmetic, key: Tensor, first_key: Tensor) -> None:
    """Refuse what would be wrong in silence."""
    if torch.is_grad_enabled() and how.recipe.precision != Precision.FP32:
        raise ConfigError(
            "create_graph=True: a gradient of the gradient would be that of rounded products, "
            "which is far off; take it inside `with mx.exact():`"
        )
    is_same = key.data_ptr() == first_key.data_ptr() or torch.equal(key, first_key)
    if how.random_letters and not is_same:
        raise ConfigError(
            "a checkpointed part of the model was computed again in another micro-batch than the "
            "first time, so with other random numbers; run each micro-batch's forward and backward "
            "pass inside one `with mx.step(number, micro_batch=i):`"
        )
