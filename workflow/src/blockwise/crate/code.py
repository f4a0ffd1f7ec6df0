"""The code in the crate: the project as it was at the commit of the run.

A commit that changes words alone re-runs nothing, so the folder may hold later code than the
run's. Git still has the run's; where it has not, the folder is taken as it is, and says so.
"""

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

CODE = (
    "Snakefile",
    "Makefile",
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
    "config",
    "envs",
    "workflow",
)
"""What it takes to run again."""

NO_CODE = shutil.ignore_patterns("__pycache__", "*.egg-info")
GIT_LIMIT_S = 60  # seconds; it takes a tenth of one


def place_code(project: Path, commit: str | None, dirty: bool | None, target: Path) -> str | None:
    """Put the code of a run into a folder.

    Returns:
        Why it may differ from what ran, or None where it is exactly that.
    """
    archive = _archive(project, commit) if commit is not None and not dirty else None
    if archive is not None:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(target, filter="data")
        return None
    for name in CODE:
        source = project / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=NO_CODE)
        elif source.is_file():
            shutil.copyfile(source, target / name)
    if commit is None:
        why = "the run was outside a git checkout"
    elif dirty:
        why = f"the run had changes beside commit {commit}"
    else:
        why = f"commit {commit} is not in this checkout"
    return f"Its code is that of the folder in which the crate was written: {why}."


def _archive(project: Path, commit: str) -> bytes | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(project), "archive", "--format=tar", commit, "--", *CODE],
            capture_output=True,
            check=True,
            timeout=GIT_LIMIT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
