"""Files from the future: what a clock that was wrong for a while leaves behind.

Snakemake refuses the output of a job where an input is younger, so one input that is dated
tomorrow fails every run until tomorrow.
"""

import os
from pathlib import Path


def pull_back(clock: Path, *folders: Path) -> list[Path]:
    """Give files dated ahead of their file system's clock its time, in the order they had.

    Args:
        clock: a file to touch: a file server has a clock of its own, and its time counts.
        folders: whose files, at any depth, may be ahead; one that does not exist has none.

    Returns:
        The files that were.
    """
    clock.touch()
    now_ns = clock.stat().st_mtime_ns
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    ahead = {path: time_ns for path in files if (time_ns := path.stat().st_mtime_ns) > now_ns}
    latest_first = sorted(set(ahead.values()), reverse=True)
    settled_ns = {time_ns: now_ns - rank for rank, time_ns in enumerate(latest_first)}
    for path, time_ns in ahead.items():
        os.utime(path, ns=(settled_ns[time_ns], settled_ns[time_ns]))
    return list(ahead)
