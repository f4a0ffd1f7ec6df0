"""Files from the future: what a clock that was wrong for a while leaves behind.

Snakemake refuses the output of a job where an input is younger, so one input that is dated
tomorrow fails every run until tomorrow.
"""

import contextlib
import os
import stat
from pathlib import Path


def pull_back(now_ns: int, *folders: Path) -> list[Path]:
    """Give files dated ahead of their file system's clock its time, in the order they had.

    Args:
        now_ns: that clock, as a file says it that was just written: a file server has its own.
        folders: whose files, at any depth, may be ahead; one that does not exist has none.

    Returns:
        The files that were.
    """
    ahead: dict[Path, int] = {}
    for path in (path for folder in folders for path in folder.rglob("*")):
        with contextlib.suppress(OSError):  # gone since, in a folder that others use too
            state = path.lstat()  # of a link itself: what it points to is not ours to date
            if stat.S_ISREG(state.st_mode) and state.st_mtime_ns > now_ns:
                ahead[path] = state.st_mtime_ns
    latest_first = sorted(set(ahead.values()), reverse=True)
    settled_ns = {time_ns: now_ns - rank for rank, time_ns in enumerate(latest_first)}
    for path, time_ns in ahead.items():
        with contextlib.suppress(OSError):  # somebody else's: Snakemake says what it cannot use
            os.utime(path, ns=(settled_ns[time_ns], settled_ns[time_ns]))
    return list(ahead)
