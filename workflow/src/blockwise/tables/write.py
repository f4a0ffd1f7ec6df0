"""Write every table: `python -m blockwise.tables.write`.

The CSV bytes are a pure function of the batches and the cells they select. What made them,
and when, stands beside them in PROVENANCE.json, so that a rerun changes no table.
"""

import argparse
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from blockwise.artifacts import digest_file, read_model, write_bytes, write_json
from blockwise.compaction.judgements import Judgements
from blockwise.compaction.similarity import Similarities
from blockwise.errors import ArtifactError, run_command
from blockwise.provenance import (
    code_digest,
    command_line,
    git_state,
    host_name,
    package_versions,
    utc_now,
)
from blockwise.tables import data_dictionary
from blockwise.tables.columns import csv_bytes
from blockwise.tables.inputs import TableInputs
from blockwise.tables.load import damage_of, load_batches, load_engine_cards, load_omitted
from blockwise.tables.registry import TABLES, load_tables


def load_inputs(
    batch_paths: Sequence[Path],
    store_folder: Path,
    *,
    similarity_paths: Sequence[Path] = (),
    judgement_paths: Sequence[Path] = (),
) -> TableInputs:
    """Everything that the tables are made from.

    Raises:
        ArtifactError: a batch or record is missing or damaged, or no batch has a cell.
    """
    cells = load_batches(batch_paths, store_folder)
    if not cells:
        raise ArtifactError(
            f"{len(batch_paths)} batches select 0 cells; tables need at least 1. Run the cells "
            "first, and look for failed ones in the log of their job"
        )
    return TableInputs(
        cells=cells,
        omitted=load_omitted(batch_paths),
        engine_cards=load_engine_cards(batch_paths),
        similarities=[read_model(path, Similarities) for path in sorted(similarity_paths)],
        judgements=[read_model(path, Judgements) for path in sorted(judgement_paths)],
    )


def build_tables(inputs: TableInputs) -> dict[str, pd.DataFrame]:
    """Every table by name, the data dictionary included."""
    modules = load_tables()
    columns = {name: module.COLUMNS for name, module in modules.items()}
    return {
        **{name: module.build(inputs) for name, module in modules.items()},
        data_dictionary.TABLE_NAME: data_dictionary.build(columns),
    }


def write_tables(
    batch_paths: Sequence[Path],
    store_folder: Path,
    output_folder: Path,
    *,
    similarity_paths: Sequence[Path] = (),
    judgement_paths: Sequence[Path] = (),
) -> None:
    """Write every table as CSV, and what they were made from."""
    inputs = load_inputs(
        batch_paths,
        store_folder,
        similarity_paths=similarity_paths,
        judgement_paths=judgement_paths,
    )
    for name, table in build_tables(inputs).items():
        write_bytes(output_folder / f"{name}.csv", csv_bytes(table))
    sources = {
        "batches": batch_paths,
        "similarities": similarity_paths,
        "judgements": judgement_paths,
    }
    write_json(output_folder / "PROVENANCE.json", _provenance(sources))


def discard_damaged(batch_paths: Sequence[Path], store_folder: Path) -> list[str]:
    """Delete every batch that is damaged, or names a missing or damaged record; say what was.

    A batch is derived from the cells and they are kept. As long as it exists, the workflow
    takes its cells for finished and would not make up for a lost record.
    """
    problems = []
    for path in batch_paths:
        damage = damage_of(path, store_folder) if path.exists() else []
        if damage:
            path.unlink()
            problems += [*damage, f"deleted {path}, which the next run makes anew"]
    return problems


def _provenance(sources: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    commit, dirty = git_state()
    return {
        "schema_version": 1,
        **{
            kind: [
                {"name": f"{path.parent.name}/{path.name}", "sha256": digest_file(path)}
                for path in sorted(paths)
            ]
            for kind, paths in sources.items()
        },
        "code_digest": code_digest("blockwise.tables.write", *TABLES.values()),
        "commit": commit,
        "dirty": dirty,
        "packages": {**package_versions(), "scipy": version("scipy")},
        "host": host_name(),
        "command": command_line(),
        "written_at": utc_now(),
    }


def main() -> None:
    """Command line: paths only."""
    parser = argparse.ArgumentParser(prog="python -m blockwise.tables.write", description=__doc__)
    parser.add_argument("--batches", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--store", type=Path, required=True, help="folder of the cell store")
    parser.add_argument("--similarities", type=Path, nargs="*", default=[], metavar="FILE")
    parser.add_argument("--judgements", type=Path, nargs="*", default=[], metavar="FILE")
    parser.add_argument("--output-dir", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        write_tables(
            arguments.batches,
            arguments.store,
            arguments.output_dir,
            similarity_paths=arguments.similarities,
            judgement_paths=arguments.judgements,
        )
    except ArtifactError as error:
        problems = discard_damaged(arguments.batches, arguments.store)
        if not problems:
            raise
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise ArtifactError(
            f"finished work is missing or damaged:{lines}\nRun the same command again: only the "
            "damaged cells run"
        ) from error


if __name__ == "__main__":
    run_command(main)
