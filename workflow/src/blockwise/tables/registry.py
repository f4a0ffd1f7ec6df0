"""Which tables there are: every module of this folder that is named like one.

A table module lists its columns (`COLUMNS`) and makes its rows from everything that tables are
made from (`build`); adding the module is all it takes. Tables come in families, one a study,
each written on its own. Nothing is imported before a table is asked for, because the workflow
lists the tables at every start.
"""

import importlib
import pkgutil
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    import pandas as pd

    from blockwise.tables.columns import Column
    from blockwise.tables.inputs import TableInputs


class Family(StrEnum):
    """Tables that are written together: those of one study."""

    COMPACTION = "compaction"
    MXFP4 = "mxfp4"


PREFIXES = {Family.COMPACTION: ("compaction_", "engine_"), Family.MXFP4: ("mxfp4_",)}
"""How the tables of a family are called; no other module of this folder is."""

_MODULES = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]


def tables_of(*families: Family) -> dict[str, str]:
    """Module of each table of some families, by the table's name."""
    prefixes = tuple(prefix for family in families for prefix in PREFIXES[family])
    return {name: f"blockwise.tables.{name}" for name in _MODULES if name.startswith(prefixes)}


TABLES = tables_of(*Family)
"""Module of each table, by the table's name."""


class TableModule(Protocol):
    """What a table module offers."""

    COLUMNS: "Sequence[Column]"

    def build(self, inputs: "TableInputs") -> "pd.DataFrame":
        """The rows, with exactly these columns."""


def load_tables(*families: Family) -> dict[str, TableModule]:
    """Import the module of every table of some families, by the table's name."""
    return {
        name: cast(TableModule, importlib.import_module(module))
        for name, module in tables_of(*families).items()
    }
