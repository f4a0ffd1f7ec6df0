"""Which figures there are: every module of this folder that draws one.

A figure module names the table it reads (`TABLE`), gives what it plots (`plotted`) and draws
it (`draw`); adding the module is all it takes. Figures come in the families of their tables.
"""

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from blockwise.errors import ArtifactError
from blockwise.tables.registry import PREFIXES, Family

if TYPE_CHECKING:  # the workflow lists figures at every start and must not wait for these
    import pandas as pd
    from matplotlib.figure import Figure

MACHINERY = frozenset(
    {"axes", "marks", "notes", "panels", "registry", "rows", "scales", "style", "write"}
)
"""Modules of this folder that are no figure."""

FIGURES: dict[str, str] = {
    module.name: f"blockwise.figures.{module.name}"
    for module in pkgutil.iter_modules([str(Path(__file__).parent)])
    if module.name not in MACHINERY
}
"""Module of each figure, by the figure's name."""


def figures_of(*families: Family) -> dict[str, str]:
    """Module of each figure of some families, by the figure's name."""
    prefixes = tuple(prefix for family in families for prefix in PREFIXES[family])
    return {name: module for name, module in FIGURES.items() if name.startswith(prefixes)}


class FigureModule(Protocol):
    """What a figure module offers."""

    TABLE: str

    def plotted(self, table: "pd.DataFrame") -> "pd.DataFrame":
        """Exactly the values that are drawn."""

    def draw(self, table: "pd.DataFrame") -> "Figure":
        """The figure of a table."""


def load_figure(name: str) -> FigureModule:
    """Import the module of a figure.

    Raises:
        ArtifactError: there is no such figure.
    """
    if name not in FIGURES:
        raise ArtifactError(f"no figure is called {name!r}; known: {', '.join(sorted(FIGURES))}")
    return cast(FigureModule, importlib.import_module(FIGURES[name]))
