"""Clears the way for a run: tells a live run in this folder from the traces of a killed one.

Snakemake locks its working directory, and a kill -9 leaves that lock behind. Removing it
is right only when nobody is at work: neither another Snakemake of this folder nor a job
that outlived its killed Snakemake and still writes results. Both are looked for by
working directory, because process ids in a stale lock file mean nothing.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import psutil

from blockwise.errors import BlockwiseError, run_command

GRACE_S = 20.0  # the server watchdog ends orphaned jobs within seconds of their Snakemake
POLL_S = 0.5


class RunError(BlockwiseError):
    """Another run is at work in this folder."""


class Worker(NamedTuple):
    """A live process of a run: its id and what it is doing, in words."""

    pid: int
    role: str


def classify_command(command: Iterable[str]) -> str | None:
    """What a command line means for a run of this project: its role, or None for nothing."""
    words = list(command)
    if not words or "python" not in Path(words[0]).name:
        return None
    if any(Path(word).name == "snakemake" for word in words[1:3]):
        return "snakemake"
    if len(words) > 2 and words[1] == "-m" and words[2].startswith("blockwise."):
        return words[2]
    return None


def find_workers(folder: Path) -> list[Worker]:
    """Live processes of runs in `folder`, this process and its ancestors left out."""
    own = psutil.Process()
    ours = {own.pid, *(parent.pid for parent in own.parents())}
    workers = []
    for process in psutil.process_iter():
        try:
            if process.pid in ours or Path(process.cwd()) != folder:
                continue
            role = classify_command(process.cmdline())
        except (psutil.Error, OSError):  # gone meanwhile, or someone else's
            continue
        if role is not None:
            workers.append(Worker(process.pid, role))
    return workers


def is_locked(folder: Path) -> bool:
    """Whether Snakemake's lock files lie in this working directory."""
    locks = folder / ".snakemake/locks"
    return locks.is_dir() and any(locks.iterdir())


def refuse_if_busy(folder: Path) -> None:
    """Raise `RunError` where a run or one of its jobs is alive in `folder`."""
    if workers := find_workers(folder):
        shown = ", ".join(f"{worker.role} (pid {worker.pid})" for worker in workers)
        raise RunError(
            f"a run is at work in {folder}: {shown}; wait for it, or stop it and start again"
        )


def clear_the_way(folder: Path, unlock: list[str], grace_s: float = GRACE_S) -> str | None:
    """Remove a stale lock with the `unlock` command; returns what was done, in words.

    Raises:
        RunError: a run or a job of this folder is alive, or the lock would not go.
    """
    if not is_locked(folder):
        return None
    deadline_s = time.monotonic() + grace_s
    while workers := find_workers(folder):
        if "snakemake" in {worker.role for worker in workers} or time.monotonic() > deadline_s:
            refuse_if_busy(folder)
        time.sleep(POLL_S)
    result = subprocess.run(unlock, cwd=folder, check=False, capture_output=True, text=True)
    if is_locked(folder):
        raise RunError(
            f"the lock in {folder}/.snakemake/locks could not be removed by "
            f"`{' '.join(unlock)}`: {result.stderr.strip()[-500:]}"
        )
    return "a killed run left its lock; nobody is at work here, so it was removed"


def _main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--configfile", nargs="+", default=["config/config.yaml"])
    parser.add_argument("--only-look", action="store_true", help="only refuse where one is alive")
    arguments = parser.parse_args()
    folder = Path(os.path.realpath(Path.cwd()))
    if arguments.only_look:
        refuse_if_busy(folder)
        return
    snakemake = Path(sys.executable).with_name("snakemake")
    unlock = [str(snakemake), "--unlock", "--configfile", *arguments.configfile]
    done = clear_the_way(folder, unlock)
    if done is not None:
        print(f"unlock: {done}")


if __name__ == "__main__":
    run_command(_main)
