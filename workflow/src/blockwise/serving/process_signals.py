"""What the kernel offers so that processes end together (Linux).

A subreaper inherits every orphan below it, so a tree keeps one root however its members fork,
start sessions or lose their parents. A parent-death signal reaches a process when the thread
that started it is gone, even by kill -9.
"""

import ctypes
import os
import signal
from types import FrameType

from blockwise.errors import ServerError

# Source: <linux/prctl.h>
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Make this process the parent of all orphans below it."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent(sent: signal.Signals = signal.SIGTERM) -> None:
    """Have the kernel send this process a signal when its parent dies.

    A batch job calls it so that kill -9 of the workflow manager ends the job, and by way of
    its watchdog the server, instead of leaving both behind.
    """
    parent = os.getppid()
    _prctl(PR_SET_PDEATHSIG, sent)
    if os.getppid() != parent:  # it died before the kernel was told
        os.kill(os.getpid(), sent)


def raise_on_sigterm() -> None:
    """Turn SIGTERM and SIGHUP into SystemExit, so that context managers unwind.

    Call it in the main thread, before any server is started.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit)


def _exit(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # the shell's code for "ended by this signal"


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        error = os.strerror(ctypes.get_errno())
        raise ServerError(f"prctl({option}, {value}) failed: {error}; servers need Linux 3.4+")
