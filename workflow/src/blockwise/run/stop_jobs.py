"""SIGTERM to Snakemake ends the jobs at work, and does not wait for hours until they are done.

Snakemake by itself starts no other job and lets those at work finish. Ours keep what they have
finished and end in seconds when they are told to, so they are told.
"""

import signal
from collections.abc import Iterator
from types import FrameType

import psutil

SHELLS = frozenset({"bash", "sh"})
LEFT_ALONE = frozenset({"tee"})  # ends with the job whose words it writes down


def stop_jobs_on_sigterm() -> None:
    """Tell the jobs of this process to end when it is told to, beside what it does itself."""
    before = signal.getsignal(signal.SIGTERM)

    def stop(number: int, frame: FrameType | None) -> None:
        for job in jobs_at_work(psutil.Process()):
            try:
                job.terminate()
            except psutil.NoSuchProcess:  # it has just ended
                continue
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGTERM, stop)


def jobs_at_work(parent: psutil.Process) -> Iterator[psutil.Process]:
    """The programs that a process has started, through shells or not; not what those started."""
    for child in parent.children():
        try:
            name = child.name()
        except psutil.NoSuchProcess:
            continue
        if name in SHELLS:
            yield from jobs_at_work(child)
        elif name not in LEFT_ALONE:
            yield child
