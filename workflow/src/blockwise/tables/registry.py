"""Which tables there are: every module of a study's folder, called as the table is.

A table module lists its columns (`COLUMNS`) and makes its rows from everything that tables are
made from (`build`); adding the module is all it takes. Tables come in families, one a study,
each written on its own; what the tables of a study share stands in its `parts`. Nothing is
imported before a table is asked for, because the workflow lists the tables at every start.
"""

import importlib
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, cast

from blockwise.config.base import modules_of
from blockwise.config.datasets import format_module, known_formats

if TYPE_CHECKING:
    import pandas as pd

    from blockwise.tables.columns import Column
    from blockwise.tables.inputs import TableInputs


class Family(StrEnum):
    """Tables that are written together: those of one study, in the folder of that name."""

    COMPACTION = "compaction"
    MXFP4 = "mxfp4"


def modules_by_name(package: str, families: Sequence[Family]) -> dict[str, str]:
    """Modules of the studies' folders in a package, by their own names; packages are none."""
    return {
        name: f"{package}.{family}.{name}"
        for family in families
        for name in modules_of(f"{package}.{family}")
    }


def tables_of(*families: Family) -> dict[str, str]:
    """Module of each table of some families, by the table's name."""
    return modules_by_name("blockwise.tables", families)


def code_of(family: Family) -> list[str]:
    """Modules that decide what the tables of a family say, those among them that a name loads."""
    formats = known_formats() if family is Family.COMPACTION else []
    return ["blockwise.tables.write", *tables_of(family).values(), *map(format_module, formats)]


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
