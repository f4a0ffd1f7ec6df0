"""Lists what a run made: its tables with their rows, and its figures.

The list is the run's manifest, so a file that an earlier configuration left behind is
not shown as a result of this one.
"""

import argparse
import csv
import sys
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from blockwise.artifacts import read_model
from blockwise.errors import ArtifactError, run_command
from blockwise.run.manifest import Manifest

TABLE_FOLDER = "tables"
LINE_CHARS = 400  # wider than any terminal, so that a path stays whole, to be copied
FIGURE_SUFFIXES = (".pdf", ".png")  # beside them lies the plotted CSV of the same name


def count_rows(path: Path) -> int:
    """Number of data rows of a CSV file, its header not counted.

    Raises:
        ArtifactError: the file cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as stream:
            return max(0, sum(1 for _ in csv.reader(stream)) - 1)
    except (OSError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ArtifactError(
            f"cannot read {path}: {why}; `make verify` names every missing or damaged file, and "
            "`make reproduce` makes them again"
        ) from error


def list_tables(manifest: Manifest) -> list[tuple[str, int]]:
    """Tables of a run by path, each with its number of rows."""
    paths = [Path(name) for name in sorted(manifest.files)]
    return [
        (str(path), count_rows(path))
        for path in paths
        if path.suffix == ".csv" and path.parent.name == TABLE_FOLDER
    ]


def list_figures(manifest: Manifest) -> list[tuple[str, str]]:
    """Figures of a run by path without ending, each with the formats it exists in."""
    formats: dict[str, list[str]] = {}
    for path in map(Path, sorted(manifest.files)):
        if path.suffix in FIGURE_SUFFIXES:
            formats.setdefault(str(path.with_suffix("")), []).append(path.suffix[1:])
    return [(stem, " ".join(suffixes)) for stem, suffixes in formats.items()]


def render_listing(manifest: Manifest) -> list[Table]:
    """The two lists as printable tables."""
    tables = Table("table", "rows", box=None, pad_edge=False)
    tables.columns[1].justify = "right"
    for path, num_rows in list_tables(manifest):
        tables.add_row(escape(path), str(num_rows))
    figures = Table("figure", "formats", box=None, pad_edge=False)
    for stem, suffixes in list_figures(manifest):
        figures.add_row(escape(stem), suffixes)
    return [tables, figures]


def print_listing(manifest: Manifest, stream: TextIO) -> None:
    """Print the two lists."""
    console = Console(file=stream, width=LINE_CHARS)
    for table in render_listing(manifest):
        console.print()
        console.print(table, crop=False)


def _main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("manifest", type=Path, help="results/<profile>/MANIFEST.json")
    arguments = parser.parse_args()
    print_listing(read_model(arguments.manifest, Manifest), sys.stdout)


if __name__ == "__main__":
    run_command(_main)
