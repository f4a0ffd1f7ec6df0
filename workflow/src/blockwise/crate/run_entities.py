"""What a finished run tells of itself: the files, the configuration, the code, the times.

Nothing is asked of the machine that writes the crate: it may be another day and another
checkout than the run's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockwise.artifacts import digest_file, read_json, read_model
from blockwise.config.profile import Profile
from blockwise.errors import ArtifactError
from blockwise.run.manifest import Manifest, damaged_files
from blockwise.tables.write import PROVENANCE

MANIFEST, CONFIG, REPORT = "MANIFEST.json", "config.json", "report.html"
TABLES, RUNS = "tables", "runs"


@dataclass(frozen=True)
class CrateFile:
    """A file of the crate; paths are those of the project."""

    path: Path
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class FinishedRun:
    """A run whose files are as it left them."""

    results: Path
    manifest: Manifest
    profile: Profile
    provenance: Sequence[dict[str, Any]]  # what made the tables, a study each
    files: Sequence[CrateFile]  # by path: tables, figures, configuration, pages, the manifest

    @property
    def tables(self) -> Path:
        """Folder of the tables."""
        return self.results / TABLES

    @property
    def figures(self) -> Path:
        """Folder of the figures."""
        return Path("figures") / self.profile.profile

    @property
    def began_at(self) -> str | None:
        """When the earliest record behind the tables was begun, or None where unknown."""
        starts = [one.get("began_at") for one in self.provenance]
        return min((start for start in starts if start), default=None)

    @property
    def version(self) -> str:
        """Commit of the code as `git describe --dirty` words it, or the package's version."""
        if self.manifest.commit is None:
            return self.manifest.packages["blockwise"]
        return self.manifest.commit + ("-dirty" if self.manifest.dirty else "")


def load_run(results: Path) -> FinishedRun:
    """Read a finished run, from the project folder.

    Raises:
        ArtifactError: the run is not finished, or is damaged, or its report is out of date.
    """
    manifest_path = results / MANIFEST
    if not manifest_path.is_file():
        raise ArtifactError(
            f"{results} holds no {MANIFEST}: a crate is made of a finished run; `make reproduce` "
            "finishes it"
        )
    manifest = read_model(manifest_path, Manifest)
    problems = damaged_files(manifest_path)
    config = results / CONFIG
    if str(config) not in manifest.files:
        problems.append(f"{config}: not in {MANIFEST}, which an earlier version wrote")
    report = results / REPORT
    if report.is_file() and report.stat().st_mtime < manifest_path.stat().st_mtime:
        problems.append(f"{report}: older than {MANIFEST}; `make report` writes it again")
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise ArtifactError(
            f"{len(problems)} files of {results} are not as a finished run leaves them; a crate "
            f"needs all of them. `make reproduce` makes what is missing:\n{listed}"
        )
    return FinishedRun(
        results=results,
        manifest=manifest,
        profile=read_model(config, Profile),
        provenance=[
            read_json(path)
            for name in PROVENANCE.values()
            if str(path := results / TABLES / name) in manifest.files
        ],
        files=_files(results, manifest),
    )


def _files(results: Path, manifest: Manifest) -> list[CrateFile]:
    """What can be given away.

    Left out is `runs/`: it holds questions and answers of datasets that have licences of their
    own. The manifest has its digests.
    """
    listed = [Path(name) for name in manifest.files]
    paths = [path for path in listed if not path.is_relative_to(results / RUNS)]
    paths += [path for name in (MANIFEST, REPORT) if (path := results / name).is_file()]
    return [CrateFile(path, digest_file(path), path.stat().st_size) for path in sorted(paths)]
