"""Which tables there are: every module of this folder that is named like one.

A table module lists its columns (`COLUMNS`) and makes its rows from everything that tables are
made from (`build`); adding the module is all it takes. Nothing is imported before a table is
asked for, because the workflow lists the tables at every start.
"""

import importlib
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    import pandas as pd

    from blockwise.tables.columns import Column
    from blockwise.tables.inputs import TableInputs

FAMILIES = ("compaction_", "engine_")  # every table's name starts with one; no other module's does
TABLES: dict[str, str] = {
    module.name: f"blockwise.tables.{module.name}"
    for module in pkgutil.iter_modules([str(Path(__file__).parent)])
    if module.name.startswith(FAMILIES)
}
"""Module of each table, by the table's name."""


class TableModule(Protocol):
    """What a table module offers."""

    COLUMNS: "Sequence[Column]"

    def build(self, inputs: "TableInputs") -> "pd.DataFrame":
        """The rows, with exactly these columns."""


def load_tables() -> dict[str, TableModule]:
    """Import the module of every table, by the table's name."""
    return {
        name: cast(TableModule, importlib.import_module(module)) for name, module in TABLES.items()
    }
