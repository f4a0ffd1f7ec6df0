"""Training with MXFP4: formats, rotations, the linear layer, the Llama, and what is measured.

from blockwise.mxfp4 import convert
mx = convert(model, "F+D+W+DHT16(W)", exclude=["lm_head"])
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blockwise.config.recipe_names import recipe
    from blockwise.config.recipes import Recipe
    from blockwise.mxfp4.conversion import Conversion, conversion_of, convert
    from blockwise.mxfp4.guard import check_conversion
    from blockwise.mxfp4.linear import MXFP4Linear

__all__ = [
    "Conversion",
    "MXFP4Linear",
    "Recipe",
    "check_conversion",
    "conversion_of",
    "convert",
    "recipe",
]

_HOMES = {
    "Conversion": "blockwise.mxfp4.conversion",
    "MXFP4Linear": "blockwise.mxfp4.linear",
    "Recipe": "blockwise.config.recipes",
    "check_conversion": "blockwise.mxfp4.guard",
    "conversion_of": "blockwise.mxfp4.conversion",
    "convert": "blockwise.mxfp4.conversion",
    "recipe": "blockwise.config.recipe_names",
}


def __getattr__(name: str) -> Any:
    """A public name, imported where it is asked for: whoever reads records needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
