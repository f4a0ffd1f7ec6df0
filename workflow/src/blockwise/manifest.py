"""The manifest: a digest of every artifact a run made, and the command that checks them.

    python -m blockwise.manifest write results/default/MANIFEST.json FILE...
    python -m blockwise.manifest verify results/default/MANIFEST.json

Paths are relative to the project, where the commands run. `verify` names what is damaged or
missing. Cells are not listed: each file of the store carries its own digest, checked when read.
"""

import argparse
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from blockwise.artifacts import digest_file, read_model, write_model
from blockwise.errors import ArtifactError, run_command
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
    problems = []
    for name, expected in read_model(manifest_path, Manifest).files.items():
        path = Path(name)
        if not path.is_file():
            problems.append(f"{name}: missing")
        elif digest_file(path) != expected:
            problems.append(f"{name}: damaged or edited since the run")
    return problems


def main() -> None:
    """Command line: write a manifest, or verify one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    write = commands.add_parser("write")
    write.add_argument("output", type=Path)
    write.add_argument("files", type=Path, nargs="+")
    verify = commands.add_parser("verify")
    verify.add_argument("manifest", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "write":
        write_manifest(arguments.output, arguments.files)
        return
    problems = damaged_files(arguments.manifest)
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise ArtifactError(f"artifacts are not as the run left them; delete and rerun:\n{listed}")
    num_files = len(read_model(arguments.manifest, Manifest).files)
    print(f"{arguments.manifest}: all {num_files} files are as the run left them")


if __name__ == "__main__":
    run_command(main)
