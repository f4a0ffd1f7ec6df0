"""Which arms see the same forward and backward pass: those that differ in Wgrad alone."""

from collections.abc import Mapping

from blockwise.config.recipes import Precision, Recipe

MAX_HELD_ARMS = 12
"""Gradients that are summed at once: of 106 million weights each takes 0.43 GB."""


def pass_of(recipe: Recipe) -> Recipe:
    """The part of a recipe that forward pass and Dgrad show; arms with the same one share it."""
    if recipe.precision != Precision.MXFP4:
        return recipe
    if recipe.fprop is None and recipe.dgrad is None:
        return Recipe(precision=Precision.FP32)
    return Recipe(fprop=recipe.fprop, dgrad=recipe.dgrad)


def shared_passes(arms: Mapping[str, Recipe]) -> list[tuple[Recipe, dict[str, Recipe]]]:
    """Arms by the pass that they share, in their order; at most `MAX_HELD_ARMS` a pass."""
    groups: dict[Recipe, dict[str, Recipe]] = {}
    for arm, recipe in arms.items():
        groups.setdefault(pass_of(recipe), {})[arm] = recipe
    return [
        (shared, dict(list(group.items())[first : first + MAX_HELD_ARMS]))
        for shared, group in groups.items()
        for first in range(0, len(group), MAX_HELD_ARMS)
    ]
