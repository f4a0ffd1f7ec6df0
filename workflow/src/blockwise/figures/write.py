"""Write one figure as PDF, PNG and the plotted CSV: `python -m blockwise.figures.write`."""

import argparse
import importlib
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd

from blockwise.artifacts import write_bytes
from blockwise.errors import ArtifactError, run_command
from blockwise.figures.registry import load_figure
from blockwise.figures.style import pdf_bytes, png_bytes
from blockwise.tables.columns import csv_bytes
from blockwise.tables.registry import TABLES


def write_figure(name: str, tables_folder: Path, output_folder: Path) -> None:
    """Draw a figure from its table and write its three files.

    Raises:
        ArtifactError: no such figure, or its table is missing or lacks a column.
    """
    module = load_figure(name)
    path = tables_folder / f"{module.TABLE}.csv"
    try:
        table = read_table(path, module.TABLE)
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"cannot read table {path}: {error}. Write the tables first, then the figure"
        ) from error
    try:
        values = module.plotted(table)
    except KeyError as error:
        raise ArtifactError(
            f"{path} lacks the column {error}, which figure {name} draws; it was written by "
            "another version. Write the tables again"
        ) from error
    figure = module.draw(table)
    write_bytes(output_folder / f"{name}.pdf", pdf_bytes(figure))
    write_bytes(output_folder / f"{name}.png", png_bytes(figure))
    write_bytes(output_folder / f"{name}.csv", csv_bytes(values))


def read_table(path: Path, name: str) -> pd.DataFrame:
    """The table, each column in the type in which it was written.

    A name may look like a number or read "nan": only an empty field is absent.
    """
    columns = importlib.import_module(TABLES[name]).COLUMNS
    types: dict[Hashable, Any] = {column.name: column.type.value for column in columns}
    return pd.read_csv(path, dtype=types, keep_default_na=False, na_values=[""])


def main() -> None:
    """Command line: a figure's name and paths."""
    parser = argparse.ArgumentParser(prog="python -m blockwise.figures.write", description=__doc__)
    parser.add_argument("--figure", required=True, help="name of the figure")
    parser.add_argument("--tables", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--output-dir", type=Path, required=True)
    arguments = parser.parse_args()
    write_figure(arguments.figure, arguments.tables, arguments.output_dir)


if __name__ == "__main__":
    run_command(main)
