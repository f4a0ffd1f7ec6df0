"""The manifest: a digest of every artifact a run made.

    python -m blockwise.run.manifest results/default/MANIFEST.json FILE...

Paths are relative to the project, where the command runs. Cells are not listed: each file of the
store carries its own digest, checked when read (`blockwise.run.verify` checks both).
"""

import argparse
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from blockwise.artifacts import digest_file, inside, read_model, write_model
from blockwise.errors import run_command
from blockwise.provenance import command_line, git_state, package_versions, utc_now


class Manifest(BaseModel):
    """Digest of each file, and what made them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    commit: str | None
    dirty: bool | None
    packages: dict[str, str]
    written_at: str
    command: str
    files: dict[str, str]  # path -> sha256


def write_manifest(output: Path, files: list[Path]) -> None:
    """Digest files and write the manifest."""
    commit, dirty = git_state()
    manifest = Manifest(
        commit=commit,
        dirty=dirty,
        packages=package_versions(),
        written_at=utc_now(),
        command=command_line(),
        files={str(path): digest_file(path) for path in sorted(set(files))},
    )
    write_model(output, manifest)


def damaged_files(manifest_path: Path) -> list[str]:
    """What no longer matches the manifest, one line each."""
    return [f"{path}: {problem}" for path, problem in damage(manifest_path).items()]


def damage(manifest_path: Path) -> dict[Path, str]:
    """The files that no longer match the manifest, each with what is wrong.

    Raises:
        ArtifactError: the manifest cannot be read, or lists files that are not the project's.
    """
    problems = {}
    for name, expected in read_model(manifest_path, Manifest).files.items():
        path = inside(Path(), name)
        if not path.is_file():
            problems[path] = "missing"
        elif digest_file(path) != expected:
            problems[path] = "damaged or edited since the run"
    return problems


def main() -> None:
    """Command line: the manifest, and the files that it lists."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    arguments = parser.parse_args()
    write_manifest(arguments.output, arguments.files)


if __name__ == "__main__":
    run_command(main)
