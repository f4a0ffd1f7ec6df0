"""Which linear layers of a model are converted, and what is left in high precision, and why.

A layer that is left out in silence makes an experiment a different one. So whatever multiplies
by a matrix is listed, patterns that match nothing are refused, and what nobody asked to leave out
is warned of.
"""

import difflib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from torch import nn

from blockwise.config.recipes import Recipe
from blockwise.errors import ConfigError
from blockwise.mxfp4.arithmetic import check_features
from blockwise.mxfp4.linear import MXFP4Linear

NUM_NAMED = 8  # layers that a message lists before it counts the rest
TRANSPOSED = "Conv1D"  # transformers' linear layer of GPT-2, whose weight is [in, out]
EXPERT_DIMENSIONS = 3  # weights of experts: one matrix each
Why = Literal["excluded", "converted before", "not nn.Linear", "no linear layer"]


@dataclass(frozen=True)
class LeftOut:
    """A module that keeps its precision."""

    name: str
    kind: str
    num_parameters: int
    why: Why


@dataclass(frozen=True)
class Coverage:
    """What share of a model is converted; parameters that modules share count once."""

    num_layers: int
    num_parameters: int
    num_converted_parameters: int
    left_out: tuple[LeftOut, ...]

    @property
    def parameters_frac(self) -> float:
        """Converted parameters over all."""
        return self.num_converted_parameters / max(self.num_parameters, 1)

    def __str__(self) -> str:
        share = (
            f"{self.num_layers} linear layers with {self.num_converted_parameters:,} of "
            f"{self.num_parameters:,} parameters ({self.parameters_frac:.1%})"
        )
        largest = sorted(self.left_out, key=lambda one: -one.num_parameters)
        named = [
            f"{one.name} ({one.kind}, {one.num_parameters:,}: {one.why})"
            for one in largest[:NUM_NAMED]
        ]
        rest = largest[NUM_NAMED:]
        if rest:
            named.append(f"{len(rest)} more ({sum(one.num_parameters for one in rest):,})")
        return f"{share}; left out: {', '.join(named) or 'nothing'}"


def chosen_layers(
    model: nn.Module, include: Sequence[str], exclude: Sequence[str]
) -> dict[str, nn.Linear]:
    """The plain linear layers that patterns choose, by name; one in two places has two.

    Raises:
        ConfigError: a pattern that matches no linear layer, or nothing is left to convert.
    """
    candidates = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if _multiplies(module)
    }
    for kind, patterns in (("include", include), ("exclude", exclude)):
        if isinstance(patterns, str):
            raise ConfigError(f"{kind} is the text {patterns!r}; give a list of patterns")
        for pattern in patterns:
            _check_pattern(kind, pattern, candidates)
    chosen = {
        name: module
        for name, module in candidates.items()
        if type(module) is nn.Linear and _is_chosen(name, include, exclude)
    }
    if not chosen:
        raise ConfigError(_nothing_left(candidates, include, exclude))
    odd = [
        f"{name} ({type(module).__name__})"
        for name, module in candidates.items()
        if not isinstance(module, MXFP4Linear)
        and type(module) is not nn.Linear
        and _is_chosen(name, include, exclude)
    ]
    if odd:
        warnings.warn(
            f"left in high precision, because they are not plain nn.Linear: {_listed(odd)}; name "
            "them in exclude to be asked no more",
            stacklevel=4,
        )
    return chosen


def check_sizes(layers: Mapping[str, nn.Linear], recipe: Recipe) -> None:
    """Refuse layers whose features a recipe cannot group, all of them at once.

    Raises:
        ConfigError: there are some; the message says how to leave them out.
    """
    refused, first = [], ""
    for name, layer in layers.items():
        try:
            check_features(layer.in_features, layer.out_features, recipe)
        except ConfigError as error:
            refused.append(name)
            first = first or f"{name}: {error}"
    if refused:
        names = ", ".join(repr(name) for name in refused)
        raise ConfigError(
            f"{first}. {len(refused)} of {len(layers)} layers are like that; to leave them in high "
            f"precision: exclude=[{names}]"
        )


def coverage_of(model: nn.Module, layers: Mapping[str, MXFP4Linear]) -> Coverage:
    """What of a model the converted layers are."""
    own = {id(p): p.numel() for layer in layers.values() for p in layer.parameters()}
    everything = {id(p): p.numel() for p in model.parameters()}
    converted = set(layers.values())
    left_out, seen = [], set(own)
    for name, module in model.named_modules():
        new = {id(p): p.numel() for p in module.parameters(recurse=False) if id(p) not in seen}
        seen |= set(new)
        if module not in converted and (new or _multiplies(module)):
            num = sum(new.values())
            left_out.append(LeftOut(name, type(module).__name__, num, _why(module)))
    return Coverage(len(converted), sum(everything.values()), sum(own.values()), tuple(left_out))


def _why(module: nn.Module) -> Why:
    if isinstance(module, MXFP4Linear):
        return "converted before"
    if type(module) is nn.Linear:
        return "excluded"
    return "not nn.Linear" if _multiplies(module) else "no linear layer"


def _multiplies(module: nn.Module) -> bool:
    """Whether a module multiplies by a matrix of its own that could be quantized."""
    return (
        isinstance(module, nn.Linear)
        or type(module).__name__ == TRANSPOSED
        or any(p.dim() == EXPERT_DIMENSIONS for p in module.parameters(recurse=False))
    )


def _is_chosen(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    return any(fnmatchcase(name, one) for one in include) and not any(
        fnmatchcase(name, one) for one in exclude
    )


def _check_pattern(kind: str, pattern: str, candidates: Mapping[str, nn.Module]) -> None:
    if any(fnmatchcase(name, pattern) for name in candidates):
        return
    inside = [name for name in candidates if name.startswith(f"{pattern}.")]
    ending = [name for name in candidates if name.endswith(f".{pattern}")]
    near = ending or difflib.get_close_matches(pattern, candidates, 3) or list(candidates)[:3]
    remedy = f"write {pattern + '.*'!r}" if inside else f"there are {_listed(near) or 'none'}"
    raise ConfigError(
        f"{kind}: the pattern {pattern!r} matches no linear layer; {remedy}, named as "
        "model.named_modules() does"
    )


def _nothing_left(
    candidates: Mapping[str, nn.Module], include: Sequence[str], exclude: Sequence[str]
) -> str:
    named = {
        name: module for name, module in candidates.items() if _is_chosen(name, include, exclude)
    }
    if any(isinstance(module, MXFP4Linear) for module in named.values()):
        return (
            "these layers are converted already; call set_recipe() or revert() of what convert "
            "returned (conversion_of(model) finds it again)"
        )
    odd = [f"{name} ({type(module).__name__})" for name, module in named.items()]
    found = f"what matches is not a plain nn.Linear: {_listed(odd)}" if odd else "nothing matches"
    return (
        f"no linear layer matches include {list(include)} and exclude {list(exclude)}: {found}; "
        "name modules as model.named_modules() does"
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NUM_NAMED])
    return shown if len(names) <= NUM_NAMED else f"{shown} and {len(names) - NUM_NAMED} more"
