"""`MXFP4Linear` as a module of torchtitan, and the converter that puts it into a model's config.

torchtitan builds a model from a tree of configs; a converter swaps nodes of the tree. This one
swaps the linear layers whose names match, as `blockwise.mxfp4.convert` does in a model.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torchtitan.components.quantization import QuantizationConverter
from torchtitan.models.common.linear import Linear
from torchtitan.protocols.module import Module

from blockwise.config.recipes import Recipe
from blockwise.errors import ConfigError
from blockwise.mxfp4.arithmetic import (
    Arithmetic,
    Backend,
    arithmetic_of,
    check_features,
    check_native,
)
from blockwise.mxfp4.linear import MXFP4Linear


class TitanMXFP4Linear(MXFP4Linear, Module):
    """A linear layer with the GEMMs of a recipe, built and initialised as torchtitan's are."""

    @dataclass(kw_only=True, slots=True)
    class Config(Linear.Config):
        """The config of the layer it replaces, and how to multiply."""

        how: Arithmetic

    def __init__(self, config: Config) -> None:
        nn.Linear.__init__(self, config.in_features, config.out_features, bias=config.bias)
        self.how = config.how


class MXFP4LinearConverter(QuantizationConverter):
    """Swaps the matching linear layers of a model's config.

    Raises:
        ConfigError: nothing matches, a dimension that cannot be grouped, or no native hardware.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(QuantizationConverter.Config):
        """What `convert` takes."""

        recipe: Recipe
        include: list[str]
        backend: Backend
        device: str
        is_compiled: bool

    def __init__(self, config: Config) -> None:
        if config.backend == "native":
            check_native(torch.device(config.device), config.recipe)
        self.config = config
        self.how = arithmetic_of(
            config.recipe, backend=config.backend, is_compiled=config.is_compiled
        )

    def convert(self, model_config: Any) -> Any:
        """The config with its layers swapped, in place."""
        found = [
            one
            for one in model_config.traverse(Linear.Config)
            if type(one[1]) is Linear.Config
            and any(fnmatchcase(one[0], pattern) for pattern in self.config.include)
        ]
        if not found:
            raise ConfigError(
                f"no linear layer of torchtitan's model matches {self.config.include}; name them "
                "as its configs do, e.g. layers.*"
            )
        for name, linear, parent, place in found:
            try:
                check_features(linear.in_features, linear.out_features, self.config.recipe)
            except ConfigError as error:
                raise ConfigError(f"{name}: {error}") from None
            swapped = TitanMXFP4Linear.Config(
                in_features=linear.in_features,
                out_features=linear.out_features,
                bias=linear.bias,
                param_init=linear.param_init,
                sharding_config=linear.sharding_config,
                how=self.how,
            )
            if isinstance(parent, list):
                parent[place] = swapped
            else:
                setattr(parent, place, swapped)
        return model_config
