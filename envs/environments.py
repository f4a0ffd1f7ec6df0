"""The environments that this folder describes: what each is made from and where it is put.

Two run the project, because vLLM's builds pin different versions of torch; a third holds the
validator of crates and a fourth the agent frameworks of the adapters, which want other versions
than they. They lie side by side, so that one checkout can hold all of them and none rebuilds
another.

Standard library only: it is read before anything is installed.
"""

import argparse
from dataclasses import dataclass

GIB = 2**30
OVERRULED = "overruled.in"  # versions that stand although a package asks for another


@dataclass(frozen=True)
class Environment:
    """What one set of packages is for; its lock is `NAME.lock`, its gaps `NAME.excluded`."""

    name: str
    folder: str  # below the project's folder
    asked_for: tuple[str, ...]  # files of this folder, all of them together
    overrides: tuple[str, ...]  # files that win wherever another package asks for one they name
    has_own_torch_index: bool  # its build of torch is on no ordinary index
    runs_project: bool  # the project itself is installed into it
    disk_needed_bytes: int
    has_hashes: bool = False  # its lock holds the digest of every file that pip may take

    @property
    def lock(self) -> str:
        """File of this folder with every package at an exact version."""
        return f"{self.name}.lock"

    @property
    def excluded(self) -> str:
        """File of this folder that says what the lock leaves out, and why."""
        return f"{self.name}.excluded"

    @property
    def make_command(self) -> str:
        """What a user types to make it."""
        return "make env" if self == CPU else f"make env-{self.name}"

    @property
    def lock_command(self) -> str:
        """What a user types to make its lock."""
        return "make lock" if self == CPU else f"make lock ENVIRONMENT={self.name}"


CPU = Environment(
    name="cpu",
    folder=".venv",
    asked_for=("cpu.in",),
    overrides=(OVERRULED,),
    has_own_torch_index=True,
    runs_project=True,
    disk_needed_bytes=5 * GIB,  # it takes 3.2 GB and pip unpacks wheels beside it
)
GPU = Environment(
    name="gpu",
    folder=".venv-gpu",
    asked_for=("cpu.in", "gpu.in"),
    overrides=(OVERRULED, "gpu.in"),
    has_own_torch_index=False,
    runs_project=True,
    disk_needed_bytes=20 * GIB,  # 4.5 GB of wheels, about twice that unpacked, and room for both
)
CRATE = Environment(
    name="crate",
    folder=".venv-crate",
    asked_for=("crate.in",),
    overrides=(),
    has_own_torch_index=False,
    runs_project=False,
    disk_needed_bytes=GIB,  # it takes 0.1 GB
)
ADAPTERS = Environment(
    name="adapters",
    folder=".venv-adapters",
    asked_for=("adapters.in",),
    overrides=(),
    has_own_torch_index=False,
    runs_project=True,
    disk_needed_bytes=GIB,  # it takes 0.5 GB
    has_hashes=True,  # all of it is on the ordinary index, where a release keeps its files
)
ENVIRONMENTS = {environment.name: environment for environment in (CPU, GPU, CRATE, ADAPTERS)}


def add_argument(parser: argparse.ArgumentParser) -> None:
    """The flag by which a command is told which environment is meant."""
    parser.add_argument(
        "--environment", choices=sorted(ENVIRONMENTS), default=CPU.name, help="default: cpu"
    )
