"""Converting a model's linear layers, and what a training says to them.

    mx = convert(model, "F+D+W+DHT16(W)", exclude=["lm_head"])
    for step, batch in enumerate(batches):
        with mx.step(step):
            model(batch).loss.backward()
    with mx.exact():
        evaluate(model)

`mx.step` gives every layer its key: a function of seed, step, micro-batch, process and layer, and
of nothing else. So what a checkpointed model computes again rounds as it did at first, a resumed
run goes on with the numbers it would have had, and there is no state to save or to broadcast.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from blockwise.config.recipe_names import recipe as recipe_of
from blockwise.config.recipes import Recipe
from blockwise.errors import ConfigError
from blockwise.mxfp4 import distributed, noise
from blockwise.mxfp4.arithmetic import Arithmetic, Backend, Tokens, arithmetic_of, check_native
from blockwise.mxfp4.coverage import Coverage, check_sizes, chosen_layers, coverage_of
from blockwise.mxfp4.linear import MXFP4Linear

MicroBatch = int | Literal["evaluation"]


class Conversion:
    """The converted layers of a model, in one hand.

    Args:
        model: that holds them; a forward pass of it is one of a micro-batch.
        layers: by name.
        seed: of the random numbers.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, MXFP4Linear], seed: int) -> None:
        self.layers, self.seed = dict(layers), seed
        self._model = model
        self._moment: tuple[int | str, ...] | None = None
        self._num_forwards = 0
        self._hook = model.register_forward_pre_hook(self._count_forward)

    @property
    def recipe(self) -> Recipe | None:
        """What the layers quantize; None without layers."""
        return next((layer.how.recipe for layer in self.layers.values()), None)

    @property
    def coverage(self) -> Coverage:
        """What share of the model is converted."""
        return coverage_of(self._model, self.layers)

    def __repr__(self) -> str:
        name = self.recipe.name if self.recipe else "nothing"
        return f"{name} in {self.coverage}"

    @contextmanager
    def step(
        self, number: int, micro_batch: MicroBatch = 0, *, rank: int | None = None
    ) -> Iterator[None]:
        """Forward and backward pass of one micro-batch of one step.

        Args:
            number: of the step, from the start of the whole training.
            micro_batch: of the step; each has a context of its own.
            rank: of the process, whose tokens are rounded with its own numbers; default: that of
                torch.distributed.

        Raises:
            ConfigError: inside another one, or inside a compiled function.
        """
        if torch.compiler.is_compiling():
            raise ConfigError("mx.step inside a compiled function; put it around the call")
        if self._moment is not None:
            raise ConfigError(
                f"step {number} begins inside {self._moment}; leave that `with mx.step` first"
            )
        own_rank = distributed.rank() if rank is None else rank
        self._moment, self._num_forwards = (self.seed, number, micro_batch, own_rank), 0
        self._give_keys()
        try:
            yield
        finally:
            self._moment = None
            for layer in self.layers.values():
                layer.key = None

    @contextmanager
    def exact(self) -> Iterator[None]:
        """For as long as this lasts the layers are plain linear layers."""
        before = [layer.is_exact for layer in self.layers.values()]
        for layer in self.layers.values():
            layer.is_exact = True
        try:
            yield
        finally:
            for layer, was_exact in zip(self.layers.values(), before, strict=True):
                layer.is_exact = was_exact

    def set_recipe(self, recipe: Recipe | str) -> None:
        """Quantize otherwise from here on.

        Raises:
            ConfigError: no recipe, or one that cannot group a layer's features.
        """
        chosen = _as_recipe(recipe)
        check_sizes(self.layers, chosen)
        for layer in self.layers.values():
            old = layer.how
            if old.backend == "native":
                check_native(layer.weight.device, chosen)
            layer.how = Arithmetic(chosen, old.backend, old.prepare, old.tokens)

    def revert(self) -> None:
        """Make the layers plain linear layers again; parameters and hooks stay."""
        for layer in self.layers.values():
            layer.revert()
        self.layers = {}
        self._hook.remove()

    def state_dict(self) -> dict[str, Any]:
        """What else a checkpoint should hold beside the model's: recipe, seed and names."""
        name = self.recipe.name if self.recipe else None
        return {"recipe": name, "seed": self.seed, "layers": list(self.layers)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with the recipe and the random numbers of such a state.

        Raises:
            ConfigError: it is of other layers.
        """
        others = set(state_dict["layers"]) ^ set(self.layers)
        if others:
            raise ConfigError(
                f"the state is of other layers than these: {sorted(others)[:3]} and so on are in "
                "one of them only; convert with the same include and exclude"
            )
        if state_dict["recipe"] is not None:
            self.set_recipe(state_dict["recipe"])
        self.seed = state_dict["seed"]

    def _give_keys(self) -> None:
        assert self._moment is not None
        if not self.layers:
            return
        keys = noise.training_keys(self._moment, list(self.layers))
        by_device = {
            device: keys.to(device)
            for device in {layer.weight.device for layer in self.layers.values()}
        }
        for index, layer in enumerate(self.layers.values()):
            layer.key = by_device[layer.weight.device][index]

    def _count_forward(self, _model: nn.Module, _inputs: tuple[Any, ...]) -> None:
        """Refuse a second forward pass under one key; what is computed again does not count."""
        if torch.compiler.is_compiling() or self._moment is None or not torch.is_grad_enabled():
            return
        is_backward = torch._C._current_graph_task_id() != -1
        if is_backward or not any(layer.how.random_letters for layer in self.layers.values()):
            return
        self._num_forwards += 1
        if self._num_forwards > 1:
            raise ConfigError(
                "a second forward pass inside one `with mx.step` would round with the random "
                "numbers of the first; give each micro-batch its own: "
                "`with mx.step(number, micro_batch=i):`"
            )


def convert(
    model: nn.Module,
    recipe: Recipe | str,
    *,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    seed: int = 0,
    tokens: Tokens = "refuse",
    backend: Backend = "emulated",
    is_compiled: bool = False,
) -> Conversion:
    """Make linear layers of a model quantize, in place.

    Args:
        model: any module; parameters, hooks and modes stay.
        recipe: what the layers quantize: a recipe, or the name of one (`F+D+W+DHT16(W)`).
        include: shell patterns of module names, e.g. `layers.*`.
        exclude: likewise; they win.
        seed: of the random numbers.
        tokens: `refuse` numbers of tokens that are no multiple of 32 where tokens share scales, or
            `pad` them with zeros for each product, which changes nothing in it.
        backend: `native` needs hardware with MXFP4 GEMMs.
        is_compiled: compile what prepares the operands.

    Returns:
        The layers, in one hand; printed, it says what share of the model they are.

    Raises:
        ConfigError: no recipe, a pattern that matches nothing, a dimension that cannot be
            grouped, or no native hardware.
    """
    chosen = _as_recipe(recipe)
    linears = chosen_layers(model, include, exclude)
    if backend == "native":
        check_native(next(model.parameters()).device, chosen)
    check_sizes(linears, chosen)
    how = arithmetic_of(chosen, backend=backend, is_compiled=is_compiled, tokens=tokens)
    layers: dict[str, MXFP4Linear] = {}
    for name, linear in linears.items():
        if type(linear) is nn.Linear:  # one that stands in two places is met again as converted
            layers[name] = MXFP4Linear.made_of(linear, how)
    return Conversion(model, layers, seed)


def conversion_of(model: nn.Module, seed: int = 0) -> Conversion:
    """The converted layers of a model that was built, copied or loaded with them."""
    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, MXFP4Linear)
    }
    return Conversion(model, layers, seed)


def _as_recipe(recipe: Recipe | str) -> Recipe:
    if isinstance(recipe, str):
        return recipe_of(recipe)
    if not isinstance(recipe, Recipe):
        raise ConfigError(
            f"the recipe is {recipe!r}; give the name of one, e.g. 'F+D+W+DHT16(W)', or a Recipe"
        )
    return recipe
