"""What can go wrong: each fault prepares itself, strikes once at its moment, and is cleared.

A fault counts as injected only if it struck: one whose process had already ended, or whose answer
nobody asked for, is no evidence of anything.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from chaos.world import Role, World
from serving import model_double

DISK_BYTES = 64 << 20
WORDS = {
    signal.SIGKILL: "kill -9",
    signal.SIGTERM: "SIGTERM",
    signal.SIGINT: "Ctrl-C",
}
PASSING = {
    "error_500": "the server answers 500",
    "stall": "the server stalls",
    "half": "half a stream",
    "half_then_done": "half a stream that claims to be whole",
    "truncated_json": "truncated JSON in a stream",
    "error_event": "an error inside a stream",
    "no_usage": "an answer without its token counts",
    "wrong_count": "a wrong count of answer tokens",
    "hang_up": "the server hangs up",
}
"""Answers after which a request is sent again."""
FATAL = {
    "other_prompt": "a wrong count of prompt tokens",
    "other_model": "an answer by another model",
    model_double.STRANGER: "a server of another model",
}
"""Answers after which no other can be trusted."""


@dataclass
class Fault:
    """One thing that goes wrong once; `name` is its row of the table."""

    name: str
    has_struck: bool = field(default=False, init=False)
    is_damage: bool = field(default=False, init=False)  # of what was finished: `verify` repairs

    def prepare(self, world: World) -> None:
        """Before the work starts."""

    def strike(self, world: World, alive: dict[int, Role | None], now_s: float) -> None:
        """Called over and over while the work runs; sets `has_struck` when it did."""

    def clear(self, world: World) -> None:
        """After the work has ended, before it is run again."""


@dataclass
class Signal(Fault):
    """A signal to a process of some role, `delay_s` after it is first seen."""

    role: Role
    number: signal.Signals
    delay_s: float
    to_group: bool = False  # as Ctrl-C in a terminal: to everything that it started
    after: "Signal | None" = None  # not before this one has struck
    first_seen_s: float | None = None

    def strike(self, world: World, alive: dict[int, Role | None], now_s: float) -> None:
        pid = next((pid for pid, role in alive.items() if role is self.role), None)
        if pid is None or (self.after is not None and not self.after.has_struck):
            return
        if self.first_seen_s is None:
            self.first_seen_s = now_s
        if now_s < self.first_seen_s + self.delay_s:
            return
        world.remember(list(alive))
        with contextlib.suppress(ProcessLookupError):
            if self.to_group:
                os.killpg(os.getpgid(pid), self.number)
            else:
                os.kill(pid, self.number)
            self.has_struck = True


@dataclass
class WrongAnswer(Fault):
    """The model double gives a wrong answer, its `number`-th or the next."""

    behaviour: str
    number: int

    def prepare(self, world: World) -> None:
        self._order = world.folder / model_double.FAULTS / f"{self.number:04d}-{self.behaviour}"
        self._order.parent.mkdir(exist_ok=True)
        self._order.touch()

    def clear(self, world: World) -> None:
        if self._order.exists():
            self._order.unlink()
        else:
            self.has_struck = True


@dataclass
class FullDisk(Fault):
    """A folder lies on a disk of its own that has `left_bytes` left until the work has ended."""

    SIGNS: ClassVar = ("No space left", "cannot write the checkpoint")  # torch may hide the first
    place: str
    left_bytes: int

    def prepare(self, world: World) -> None:
        self._disk = world.folder / self.place
        if not self._disk.is_mount():
            mount_small_disk(self._disk)
        filler = self._disk / ".filler"
        state = os.statvfs(self._disk)
        num_bytes = state.f_bavail * state.f_frsize - self.left_bytes
        with filler.open("wb") as stream:
            stream.write(bytes(max(num_bytes, 0)))

    def strike(self, world: World, alive: dict[int, Role | None], now_s: float) -> None:
        state = os.statvfs(self._disk)
        if not world.kept and state.f_bavail * state.f_frsize < 8192:
            world.remember(list(alive))

    def clear(self, world: World) -> None:
        said = max(world.folder.glob("start-*.log")).read_text(errors="replace")
        logs = [log.read_text(errors="replace") for log in world.folder.glob("logs/**/*.log")]
        self.has_struck = any(sign in text for text in (said, *logs) for sign in self.SIGNS)
        (self._disk / ".filler").unlink()


@dataclass
class ClockJump(Fault):
    """The wall clock jumps, and files have times of before or after."""

    jump_s: float
    delay_s: float
    rng: random.Random
    begin_s: float | None = None

    def strike(self, world: World, alive: dict[int, Role | None], now_s: float) -> None:
        self.begin_s = now_s if self.begin_s is None else self.begin_s
        if now_s < self.begin_s + self.delay_s:
            return
        world.remember(list(alive))
        world.jump_clock(self.jump_s)
        files = [path for path in (world.folder / world.work.results).rglob("*") if path.is_file()]
        then_s = time.time() + self.jump_s
        for path in self.rng.sample(files, len(files) // 3):
            with contextlib.suppress(FileNotFoundError):
                os.utime(path, (then_s, then_s))
        self.has_struck = True


@dataclass
class SecondRun(Fault):
    """The same command is started again while it runs."""

    delay_s: float
    first_seen_s: float | None = None

    def strike(self, world: World, alive: dict[int, Role | None], now_s: float) -> None:
        self.first_seen_s = now_s if self.first_seen_s is None else self.first_seen_s
        if now_s >= self.first_seen_s + self.delay_s:
            world.remember(list(alive))
            world.start()
            self.has_struck = True

    def clear(self, world: World) -> None:
        second = world.processes[-1]
        with contextlib.suppress(subprocess.TimeoutExpired):
            second.wait(60)


@dataclass
class DeletedState(Fault):
    """`.snakemake` is deleted while the work runs."""

    delay_s: float
    first_seen_s: float | None = None

    def strike(self, world: World, alive: dict[int, Role | None], now_s: float) -> None:
        state = world.folder / ".snakemake"
        if not state.is_dir():
            return
        self.first_seen_s = now_s if self.first_seen_s is None else self.first_seen_s
        if now_s >= self.first_seen_s + self.delay_s:
            world.remember(list(alive))
            shutil.rmtree(state, ignore_errors=True)
            self.has_struck = True


@dataclass
class FlippedBits(Fault):
    """One byte of one file that is there already is another, and its times are what they were."""

    pattern: str
    rng: random.Random
    path: Path | None = None

    def prepare(self, world: World) -> None:
        self.is_damage = True
        files = [path for path in sorted(world.folder.glob(self.pattern)) if path.stat().st_size]
        if not files:
            return
        self.path = self.rng.choice(files)
        content = bytearray(self.path.read_bytes())
        content[self.rng.randrange(len(content))] ^= 1 << self.rng.randrange(8)
        world.damaged.add(self.path)
        world.kept.pop(self.path, None)
        times = self.path.stat()
        self.path.write_bytes(content)
        os.utime(self.path, ns=(times.st_atime_ns, times.st_mtime_ns))
        self.has_struck = True


def mount_small_disk(folder: Path) -> None:
    """Put a folder on a small tmpfs, with what it holds."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f".{folder.name}.before")
    shutil.copytree(folder, aside)
    size = f"size={DISK_BYTES}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "chaos", str(folder)], check=True)
    shutil.copytree(aside, folder, dirs_exist_ok=True)
    shutil.rmtree(aside)


def unmount(folders: Sequence[Path]) -> None:
    """Take small disks away again, with what is on them."""
    for folder in folders:
        if folder.is_mount():
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def can_mount(scratch: Path) -> bool:
    """Whether this user may make a small disk (as root, outside most containers)."""
    folder = scratch / "mount"
    try:
        mount_small_disk(folder)
    except (OSError, subprocess.CalledProcessError):
        return False
    unmount([folder])
    return True
