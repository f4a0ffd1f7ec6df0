"""Which figures there are: every module of a study's folder, called as the figure is.

A figure module names the table it reads (`TABLE`), gives what it plots (`plotted`) and draws
it (`draw`); adding the module is all it takes. Figures come in the families of their tables.
"""

import ast
import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from blockwise.errors import ArtifactError
from blockwise.tables.registry import Family, modules_by_name

if TYPE_CHECKING:  # the workflow lists figures at every start and must not wait for these
    import pandas as pd
    from matplotlib.figure import Figure


def figures_of(*families: Family) -> dict[str, str]:
    """Module of each figure of some families, by the figure's name."""
    return modules_by_name("blockwise.figures", families)


FIGURES = figures_of(*Family)
"""Module of each figure, by the figure's name."""


class FigureModule(Protocol):
    """What a figure module offers."""

    TABLE: str

    def plotted(self, table: "pd.DataFrame") -> "pd.DataFrame":
        """Exactly the values that are drawn."""

    def draw(self, table: "pd.DataFrame") -> "Figure":
        """The figure of a table."""


def table_of(name: str) -> str:
    """The table that a figure reads, from its module's text: the workflow imports no figure."""
    package, _, module = FIGURES[name].rpartition(".")
    folder = importlib.util.find_spec(package)
    assert folder is not None, package
    assert folder.submodule_search_locations is not None, package
    source = Path(folder.submodule_search_locations[0], f"{module}.py").read_text(encoding="utf-8")
    (table,) = (
        ast.literal_eval(line.partition("=")[2].strip())
        for line in source.splitlines()
        if line.startswith("TABLE = ")
    )
    return str(table)


def load_figure(name: str) -> FigureModule:
    """Import the module of a figure.

    Raises:
        ArtifactError: there is no such figure.
    """
    if name not in FIGURES:
        raise ArtifactError(f"no figure is called {name!r}; known: {', '.join(sorted(FIGURES))}")
    return cast(FigureModule, importlib.import_module(FIGURES[name]))
