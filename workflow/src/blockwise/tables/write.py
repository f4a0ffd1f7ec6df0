"""Write the tables of one family: `python -m blockwise.tables.write compaction` or `mxfp4`.

The CSV bytes are a pure function of the batches and the records they select. What made them,
and when, stands beside them in a PROVENANCE file, so that a rerun changes no table. A table
whose part of the study was not run is empty, with all its columns.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from blockwise.artifacts import digest_file, read_model, write_bytes, write_json
from blockwise.compaction.judgements import Judgements
from blockwise.compaction.similarity import Similarities
from blockwise.config.profile import Profile
from blockwise.errors import ArtifactError, ConfigError, run_command
from blockwise.mxfp4.records import DescentOutput, Diagnostics, Outliers, Speed
from blockwise.provenance import (
    code_digest,
    command_line,
    git_state,
    host_name,
    package_versions,
    utc_now,
)
from blockwise.tables.columns import csv_bytes
from blockwise.tables.compaction.parts.load import (
    damage_of,
    load_batches,
    load_engine_cards,
    load_omitted,
)
from blockwise.tables.inputs import TableInputs
from blockwise.tables.mxfp4.parts.training import damage_of_training, load_runs
from blockwise.tables.registry import Family, code_of, load_tables

PROVENANCE = {Family.COMPACTION: "PROVENANCE.json", Family.MXFP4: "PROVENANCE_mxfp4.json"}


@dataclass(frozen=True)
class CompactionSources:
    """Files that the tables of the compaction study are made from."""

    batches: Sequence[Path]
    store: Path
    similarities: Sequence[Path] = ()
    judgements: Sequence[Path] = ()

    def load(self) -> TableInputs:
        """Read them.

        Raises:
            ArtifactError: a file or record is missing or damaged, or no batch has a cell.
        """
        cells = load_batches(self.batches, self.store)
        if not cells:
            raise ArtifactError(
                f"{len(self.batches)} batches select 0 cells; tables need at least 1. Run the "
                "cells first, and look for failed ones in the log of their job"
            )
        return TableInputs(
            cells=cells,
            omitted=load_omitted(self.batches),
            engine_cards=load_engine_cards(self.batches),
            similarities=[read_model(path, Similarities) for path in sorted(self.similarities)],
            judgements=[read_model(path, Judgements) for path in sorted(self.judgements)],
        )

    def files(self) -> dict[str, Sequence[Path]]:
        """Files by kind, for the provenance."""
        return {
            "batches": self.batches,
            "similarities": self.similarities,
            "judgements": self.judgements,
        }

    def discard_damaged(self) -> list[str]:
        """See `discard_damaged`."""
        return discard_damaged(self.batches, lambda path: damage_of(path, self.store))


@dataclass(frozen=True)
class MXFP4Sources:
    """Files that the tables of the MXFP4 study are made from; any list may be empty."""

    config: Path
    store: Path
    training: Sequence[Path] = ()
    diagnostics: Sequence[Path] = ()
    layer_errors: Sequence[Path] = ()
    descent: Sequence[Path] = ()
    outliers: Sequence[Path] = ()
    speed: Sequence[Path] = ()

    def load(self) -> TableInputs:
        """Read them.

        Raises:
            ArtifactError: a file or run is missing or damaged, or is not of this configuration.
            ConfigError: the profile has no MXFP4 study.
        """
        study = read_model(self.config, Profile).mxfp4
        if study is None:
            raise ConfigError(f"{self.config} has no section mxfp4, which its tables need; add it")
        return TableInputs(
            mxfp4=study,
            runs=load_runs(study, self.training, self.store),
            diagnostics=[read_model(path, Diagnostics) for path in self.diagnostics],
            layer_errors=[read_model(path, Diagnostics) for path in self.layer_errors],
            descents=[read_model(path, DescentOutput) for path in self.descent],
            outliers=[read_model(path, Outliers) for path in self.outliers],
            speeds=[read_model(path, Speed) for path in self.speed],
        )

    def files(self) -> dict[str, Sequence[Path]]:
        """Files by kind, for the provenance."""
        return {
            "config": [self.config],
            "training": self.training,
            "diagnostics": self.diagnostics,
            "layer_errors": self.layer_errors,
            "descent": self.descent,
            "outliers": self.outliers,
            "speed": self.speed,
        }

    def discard_damaged(self) -> list[str]:
        """See `discard_damaged`."""
        return discard_damaged(self.training, lambda path: damage_of_training(path, self.store))


Sources = CompactionSources | MXFP4Sources


def family_of(sources: Sources) -> Family:
    """The tables that are made from these files."""
    return Family.MXFP4 if isinstance(sources, MXFP4Sources) else Family.COMPACTION


def build_tables(family: Family, inputs: TableInputs) -> dict[str, pd.DataFrame]:
    """Every table of a family by name."""
    return {name: module.build(inputs) for name, module in load_tables(family).items()}


def write_tables(sources: Sources, output_folder: Path) -> None:
    """Write every table of a family as CSV, and what they were made from."""
    family, inputs = family_of(sources), sources.load()
    for name, table in build_tables(family, inputs).items():
        write_bytes(output_folder / f"{name}.csv", csv_bytes(table))
    made = {**_provenance(family, sources.files()), "began_at": inputs.began_at}
    write_json(output_folder / PROVENANCE[family], made)


def discard_damaged(
    batch_paths: Sequence[Path], damage_of_batch: Callable[[Path], list[str]]
) -> list[str]:
    """Delete every batch that is damaged, or names a missing or damaged record; say what was.

    A batch is derived from the records and they are kept. As long as it exists, the workflow
    takes its work for finished and would not make up for a lost record.
    """
    problems = []
    for path in batch_paths:
        damage = damage_of_batch(path) if path.exists() else []
        if damage:
            path.unlink()
            problems += [*damage, f"deleted {path}, which the next run makes anew"]
    return problems


def _provenance(family: Family, files: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    commit, dirty = git_state()
    return {
        "schema_version": 1,
        **{
            kind: [
                {"name": f"{path.parent.name}/{path.name}", "sha256": digest_file(path)}
                for path in sorted(paths)
            ]
            for kind, paths in files.items()
        },
        "code_digest": code_digest(*code_of(family)),
        "commit": commit,
        "dirty": dirty,
        "packages": {**package_versions(), "scipy": version("scipy")},
        "host": host_name(),
        "command": command_line(),
        "written_at": utc_now(),
    }


def _sources_of(arguments: argparse.Namespace) -> Sources:
    """What a command line names."""
    if arguments.family == Family.COMPACTION:
        return CompactionSources(
            arguments.batches,
            arguments.store,
            similarities=arguments.similarities,
            judgements=arguments.judgements,
        )
    return MXFP4Sources(
        arguments.config,
        arguments.store,
        training=arguments.training,
        diagnostics=arguments.diagnostics,
        layer_errors=arguments.layer_errors,
        descent=arguments.descent,
        outliers=arguments.outliers,
        speed=arguments.speed,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m blockwise.tables.write", description=__doc__)
    families = parser.add_subparsers(dest="family", required=True)
    compaction = families.add_parser(Family.COMPACTION, help="tables of the compaction study")
    compaction.add_argument("--batches", type=Path, nargs="+", required=True, metavar="FILE")
    mxfp4 = families.add_parser(Family.MXFP4, help="tables of the MXFP4 study")
    mxfp4.add_argument("--config", type=Path, required=True, help="resolved profile, JSON")
    for family, kinds in (
        (compaction, ("similarities", "judgements")),
        (mxfp4, ("training", "diagnostics", "layer_errors", "descent", "outliers", "speed")),
    ):
        for kind in kinds:
            family.add_argument(
                f"--{kind.replace('_', '-')}", type=Path, nargs="*", default=[], metavar="FILE"
            )
        family.add_argument("--store", type=Path, required=True, help="folder of the cell store")
        family.add_argument("--output-dir", type=Path, required=True)
    return parser


def main() -> None:
    """Command line: a family and paths."""
    arguments = _parser().parse_args()
    sources = _sources_of(arguments)
    try:
        write_tables(sources, arguments.output_dir)
    except ArtifactError as error:
        problems = sources.discard_damaged()
        if not problems:
            raise
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise ArtifactError(
            f"finished work is missing or damaged:{lines}\nRun the same command again: only what "
            "is damaged runs"
        ) from error


if __name__ == "__main__":
    run_command(main)
