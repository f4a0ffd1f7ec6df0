"""A folder in which work runs, is disturbed and runs again, and what must hold there afterwards."""

import csv
import fcntl
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO

from blockwise.serving.devices import LOCK_FOLDER_VARIABLE
from blockwise.tables.columns import ColumnKind
from blockwise.tables.registry import Family, load_tables
from leftovers import processes_of, shared_memory_of
from serving import model_double

TESTS = Path(__file__).parents[1]
FAKE_VLLM = TESTS / "serving" / "fake_vllm"
SOURCES = TESTS.parent / "src"
LOCKS, CLOCK = "locks", "clock"
ATTEMPT_LIMIT_S = 180.0
END_LIMIT_S = 60.0  # the watchdog's grace and vLLM's own shutdown
POLL_S = 0.02


Rows = list[tuple[tuple[str, str], ...]]
"""Rows of a table as pairs of column and value."""


class Role(StrEnum):
    """What a process of a run is there for."""

    SNAKEMAKE = "Snakemake"
    JOB = "the batch job"
    WATCHDOG = "the watchdog"
    SERVER = "the API server"
    ENGINE = "EngineCore"
    WORKER = "Worker"
    TRAINING = "the training job"
    TABLES = "the tables' job"
    FIGURES = "a figure's job"


SIGNS = {
    Role.WATCHDOG: r" -m blockwise\.serving\.watchdog ",
    Role.SERVER: r" -m vllm\.entrypoints\.openai\.api_server ",
    Role.ENGINE: r"^VLLM::EngineCore",
    Role.WORKER: r"^VLLM::Worker",
    Role.JOB: r" -m blockwise\.compaction\.play_batch ",
    Role.TRAINING: r" -m blockwise\.mxfp4\.train_arm ",
    Role.TABLES: r" -m blockwise\.tables\.write ",
    Role.FIGURES: r" -m blockwise\.figures\.write ",
    Role.SNAKEMAKE: r" -m snakemake ",
}
"""What the command line of each has; the first that is found counts."""


def role_of(command: str) -> Role | None:
    if command.startswith("/bin/"):  # a shell that names what it is about to become
        return None
    return next((role for role, sign in SIGNS.items() if re.search(sign, command)), None)


@dataclass(frozen=True)
class Work:
    """A command, and where the tables of what it made are."""

    command: tuple[str, ...]
    unlock: tuple[str, ...]  # what clears the way for another go; empty: nothing stands in it
    results: str
    family: Family
    repeated: frozenset[ColumnKind]  # the columns in which every run ends alike
    write_tables: Callable[[Path], None] = lambda folder: None
    is_real: bool = False


@dataclass
class World:
    """One folder; `spans` says when a role lived in a run that nobody disturbed."""

    folder: Path
    work: Work
    clock_library: Path | None = None
    spans: dict[Role, float] = field(default_factory=dict)
    segments: set[Path] = field(default_factory=set)
    kept: dict[Path, bytes] = field(default_factory=dict)
    damaged: set[Path] = field(default_factory=set)
    processes: list[subprocess.Popen] = field(default_factory=list)
    num_starts: int = 0

    def environment(self) -> dict[str, str]:
        """Of every command here. The real server waits for the user's lock, as it should."""
        path = [str(SOURCES)] if self.work.is_real else map(str, (FAKE_VLLM, TESTS, SOURCES))
        values = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "COLUMNS": "200"}
        if not self.work.is_real:
            values |= {"FAKE_VLLM": "play", LOCK_FOLDER_VARIABLE: str(self.folder / LOCKS)}
            if self.clock_library is not None:
                clock = str(self.folder / CLOCK)
                values |= {"LD_PRELOAD": str(self.clock_library), "CHAOS_CLOCK": clock}
        return values

    def start(self, command: Sequence[str] | None = None) -> subprocess.Popen:
        """Start the work, or another command, as the leader of a group as a terminal's is."""
        if not (self.folder / CLOCK).exists():
            self.jump_clock(0.0)
        with (self.folder / f"start-{self.num_starts:02d}.log").open("wb") as log:
            process = subprocess.Popen(
                command or self.work.command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=self.environment(),
            )
        self.num_starts += 1
        self.processes.append(process)
        return process

    def jump_clock(self, seconds: float) -> None:
        """Move the wall clock of everything that runs here, now and later."""
        path = self.folder / CLOCK
        with path.open("r+b" if path.exists() else "wb") as clock:
            clock.write(struct.pack("d", seconds))

    def alive(self) -> dict[int, Role | None]:
        """Every process here and its role."""
        return {pid: role_of(command) for pid, command in processes_of(self.folder).items()}

    def remember(self, pids: Sequence[int]) -> None:
        """Note what must be kept and what must be gone, just before something breaks."""
        self.segments |= shared_memory_of(pids)
        whole = (path for path in self.units() if path not in self.damaged)
        self.kept |= {path: path.read_bytes() for path in whole}

    def units(self) -> list[Path]:
        """Finished cells, timing blocks and training runs."""
        cells = self.folder / self.work.results / "cells"
        kinds = ("cells", "timing_blocks", "training_runs")
        return sorted(path for kind in kinds for path in (cells / kind).glob("*/*.json"))

    def wait_for_end(self) -> dict[int, str]:
        """Until nothing runs here; what still does after the limit."""
        deadline_s = time.monotonic() + END_LIMIT_S
        while True:
            for process in self.processes:
                process.poll()
            left = processes_of(self.folder)
            if not left or time.monotonic() > deadline_s:
                return left
            time.sleep(POLL_S)

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        """Run a command to its end: its status and what it said."""
        process = self.start(command)
        log = self.folder / f"start-{self.num_starts - 1:02d}.log"
        try:
            status = process.wait(ATTEMPT_LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return -1, f"no end after {ATTEMPT_LIMIT_S} s:\n{log.read_text(errors='replace')}"
        return status, log.read_text(errors="replace")

    def clear_the_way(self) -> str | None:
        """What `make reproduce` does first; why it failed, or None."""
        return self._failure_of(self.work.unlock) if self.work.unlock else None

    def run_again(self) -> str | None:
        """Do what a user does after anything: type the command again; why it failed, or None."""
        return self.clear_the_way() or self._failure_of(self.work.command)

    def _failure_of(self, command: Sequence[str]) -> str | None:
        status, said = self.run(command)
        if not status:
            return None
        return f"{' '.join(command[1:4])} ended with {status}: {said.strip()[-1500:]}"

    def rows(self) -> dict[str, Rows]:
        """The rows of every table, in the columns that must repeat."""
        tables = self.folder / self.work.results / "tables"
        self.work.write_tables(self.folder)
        rows = {}
        for name, module in load_tables(self.work.family).items():
            columns = [one.name for one in module.COLUMNS if one.kind in self.work.repeated]
            with (tables / f"{name}.csv").open(newline="", encoding="utf-8") as file:
                read = csv.DictReader(file)
                rows[name] = [tuple((one, row[one]) for one in columns) for row in read]
        if "engine_cards" in rows:  # one row a start of the server, and a killed run needs more
            rows["engine_cards"] = sorted(set(rows["engine_cards"]))
        return rows

    def leftovers(self) -> list[str]:
        """What should be gone: processes, shared memory, locks; a line each."""
        problems = [f"orphan {pid}: {name[:200]}" for pid, name in self.wait_for_end().items()]
        deadline_s = time.monotonic() + END_LIMIT_S
        while any(one.exists() for one in self.segments) and time.monotonic() < deadline_s:
            time.sleep(POLL_S)
        problems += [f"shared memory {one}" for one in self.segments if one.exists()]
        problems += [f"lock {path}" for path in self.folder.glob(".snakemake/locks/*")]
        for path in self.folder.glob(f"{LOCKS}/*.lock"):
            with path.open("a") as stream:
                if not _can_lock(stream):
                    problems.append(f"lock {path}")
        return problems

    def lost_units(self) -> list[str]:
        """Finished units that are not what they were when something broke."""
        return [
            f"{path.name} {'changed' if path.exists() else 'is gone'}"
            for path, content in self.kept.items()
            if not path.exists() or path.read_bytes() != content
        ]

    def answers_struck(self) -> list[str]:
        """Orders that the model double has carried out."""
        done = self.folder / model_double.FAULTS / model_double.STRUCK
        return sorted(path.name for path in done.glob("*"))

    def close(self) -> None:
        """End whatever still runs here, and remove the folder."""
        for pid in processes_of(self.folder):
            os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.wait()
        shutil.rmtree(self.folder)


def _can_lock(stream: IO[str]) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def build_clock(folder: Path) -> Path | None:
    """The library whose clock jumps, or None where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return None
    library = folder / "clock.so"
    source = str(Path(__file__).with_name("clock.c"))
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(library), source], check=True)
    return library
