"""The reference snapshot: tables and figures of a default run that a visitor can read at once.

    python -m blockwise.run.reference results/default figures/default
    python -m blockwise.run.reference results/gpu figures/gpu --into workflow/docs/gpu

Copies the tables (CSV) to results/reference and the figures (PNG) to figures/reference, with
the manifest of the run they came from, and writes what the README says of the claims; or to
tables/ and figures/ of a folder, and leaves the README alone. Only an undamaged run is taken.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from blockwise.artifacts import write_bytes
from blockwise.errors import ArtifactError, run_command
from blockwise.report.front_page import with_claims
from blockwise.run.manifest import damaged_files

MAX_TABLE_BYTES = 2_000_000  # the snapshot lives in git: a few MB in all


def refresh(results: Path, figures: Path, readme: Path) -> list[Path]:
    """Replace the snapshot by the tables and figures of this run; return what was written.

    Raises:
        ArtifactError: the run is incomplete or damaged, a table is too large for git, or the
            README has no place for the claims. Nothing has been replaced then.
    """
    sound = sound_files(results)
    front_page = with_claims(readme.read_text(encoding="utf-8"))
    tables_to, figures_to = results.parent / "reference", figures.parent / "reference"
    written = replace_folders(sound, tables_to, figures, figures_to)
    write_bytes(readme, front_page.encode())
    return [*written, readme]


def sound_files(results: Path) -> list[Path]:
    """The tables, manifest and provenance of an undamaged run.

    Raises:
        ArtifactError: the run is incomplete or damaged, or a table is too large for git.
    """
    manifest = results / "MANIFEST.json"
    problems = damaged_files(manifest)
    if problems:
        raise ArtifactError("not taken as a reference, rerun first: " + "; ".join(problems))
    tables = sorted((results / "tables").glob("*.csv"))
    provenance = sorted((results / "tables").glob("PROVENANCE*.json"))
    too_large = [str(table) for table in tables if table.stat().st_size > MAX_TABLE_BYTES]
    if too_large:
        raise ArtifactError(
            f"{', '.join(too_large)} exceed {MAX_TABLE_BYTES} bytes; a reference run is a small one"
        )
    return [*tables, manifest, *provenance]


def replace_folders(
    tables: Sequence[Path], tables_to: Path, figures: Path, figures_to: Path
) -> list[Path]:
    """Replace the files of one folder by these tables, of another by a run's figures (PNG).

    Folders in them stay: they hold the kept runs of other profiles.
    """
    written = []
    for source_files, target in ((tables, tables_to), (sorted(figures.glob("*.png")), figures_to)):
        target.mkdir(parents=True, exist_ok=True)
        for file in target.iterdir():
            if file.is_file():
                file.unlink()
        for file in source_files:
            shutil.copyfile(file, target / file.name)
            written.append(target / file.name)
    return written


def main() -> None:
    """Command line: refresh the snapshot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("figures", type=Path)
    parser.add_argument("--into", type=Path, help="another folder than the snapshot")
    arguments = parser.parse_args()
    into: Path | None = arguments.into
    if into is None:
        written = refresh(arguments.results, arguments.figures, Path("README.md"))
    else:
        sound = sound_files(arguments.results)
        written = replace_folders(sound, into / "tables", arguments.figures, into / "figures")
    for path in written:
        print(path)


if __name__ == "__main__":
    run_command(main)
