"""Holds a finished run against what it recorded: `blockwise verify results/default`.

Tables, figures and batches against the digests of the manifest, tables against the columns of
this code, every finished cell and training run against the digest that it was sealed with. With
`--repair` what is damaged is deleted, and where it is a cell, the batch that names it: the next
run makes these again, and nothing else. The manifest goes with them, because a run that has one is
finished: Snakemake misses no file between the first and the last.
"""

import csv
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import click

from blockwise.artifacts import read_model
from blockwise.claims import ledger
from blockwise.command_line import EXISTING_FOLDER, run
from blockwise.errors import ArtifactError
from blockwise.run.manifest import Manifest, damage
from blockwise.tables.columns import Column
from blockwise.tables.compaction.parts.load import damage_of
from blockwise.tables.mxfp4.parts.training import damage_of_training
from blockwise.tables.registry import Family, load_tables
from blockwise.tables.write import discard_damaged

MANIFEST = "MANIFEST.json"
BATCHES: dict[str, Callable[..., list[str]]] = {
    "runs/compaction/*/*.json": damage_of,
    "runs/mxfp4/training/*.json": damage_of_training,
}
"""Where the batches of a run lie, and what finds their damage."""


def verify(results: Path, *, repair: bool) -> list[str]:
    """What of a run is damaged, one line each; nothing if it is as it was left.

    Args:
        results: the run's folder, as the manifest names it.
        repair: delete what is damaged.

    Raises:
        ArtifactError: there is no manifest: the run has not finished.
    """
    named = [*damage(results / MANIFEST).items(), *_outdated_tables(results)]
    if repair:
        for path, _ in named:
            path.unlink(missing_ok=True)
    lines = (f"{path}: {problem}" for path, problem in named)
    problems = [*lines, *_damaged_batches(results, repair=repair)]
    if repair and problems:
        (results / MANIFEST).unlink(missing_ok=True)
    return problems


def _damaged_batches(results: Path, *, repair: bool) -> Iterator[str]:
    store = results / "cells"
    for pattern, damage_of_batch in BATCHES.items():
        paths = sorted(results.glob(pattern))
        find_damage = partial(damage_of_batch, store_folder=store)
        if repair:
            yield from discard_damaged(paths, find_damage)
        else:
            yield from chain.from_iterable(map(find_damage, paths))


def _outdated_tables(results: Path) -> Iterator[tuple[Path, str]]:
    columns: dict[str, list[Column]] = {
        **{name: list(module.COLUMNS) for name, module in load_tables(*Family).items()},
        **{name: list(table) for name, table in ledger.TABLES.items()},
    }
    for name in read_model(results / MANIFEST, Manifest).files:
        path = Path(name)
        if path.suffix != ".csv" or path.stem not in columns or not path.is_file():
            continue
        if path.parent.name == "tables":
            with path.open(newline="", encoding="utf-8", errors="replace") as file:
                found = next(csv.reader(file), [])
            if found != [column.name for column in columns[path.stem]]:
                yield path, "its columns are not those of this code"


@click.command("verify")
@click.argument("results", type=EXISTING_FOLDER)
@click.option("--repair", is_flag=True, help="Delete what is damaged.")
def command(results: Path, *, repair: bool) -> None:
    """Hold the finished run in RESULTS against what it recorded."""
    problems = verify(results, repair=repair)
    if not problems:
        num_files = len(read_model(results / MANIFEST, Manifest).files)
        print(f"{results}: all {num_files} files and their cells are as the run left them")
        return
    listed = "\n".join(f"  - {problem}" for problem in problems)
    what_next = (
        "they are out of the way; `make reproduce` makes them again"
        if repair
        else "`make verify REPAIR=1` puts them out of the way, `make reproduce` makes them again"
    )
    raise ArtifactError(f"{len(problems)} artifacts are damaged; {what_next}:\n{listed}")


if __name__ == "__main__":
    run(command)
