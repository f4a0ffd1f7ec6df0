"""What a run has left on the machine: processes, and segments of shared memory."""

import contextlib
import re
import time
from collections.abc import Iterable
from pathlib import Path

import psutil


def processes_of(folder: Path) -> dict[int, str]:
    """Command lines of live processes that work in this folder."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        try:
            if (entry / "cwd").readlink() != folder:
                continue
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                found[pid] = " ".join(process.cmdline()) or process.name()
        except (OSError, psutil.Error):  # it ended meanwhile
            continue
    return found


def shared_memory_of(pids: Iterable[int]) -> set[Path]:
    """Segments that these processes hold; other tests beside this one have their own."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):  # it ended meanwhile
            maps = Path(f"/proc/{pid}/maps").read_text()
            found |= {Path(name) for name in re.findall(r"(/dev/shm/\S+)", maps)}
    return found


def wait_until(condition, timeout_s: float, what: str) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"{what} did not come within {timeout_s} s"
        time.sleep(0.1)
