"""Work whose times count, and work that stands aside for it, on one machine.

    python -m blockwise.timed COMMAND ...

Runs the command while a lock says that something timed plays. Trainings at idle priority look at
the lock between two steps and wait until nobody holds it; they are of any run in any folder. The
lock goes with the process that holds it, however that ends. Whoever times never waits.
"""

import fcntl
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

LOCK_FILE = "blockwise-timed.lock"
ANYBODY = 0o666  # another user's run holds and looks at the same lock


def lock_path() -> Path:
    """The lock of this machine."""
    return Path(tempfile.gettempdir()) / LOCK_FILE


def hold(path: Path) -> int:
    """Say that something timed plays, until the returned file is closed."""
    descriptor = _opened(path)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def stand_aside(path: Path, report: Callable[[str], None] = print) -> None:
    """Return once nothing timed plays; says so if it has to wait."""
    descriptor = _opened(path)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("something timed plays on this machine: training waits")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            report("training goes on")
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    # Not for writing: a kernel may refuse that for another user's file in a shared folder.
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, ANYBODY)
        os.fchmod(descriptor, ANYBODY)  # whatever the umask
        return descriptor


def main() -> None:
    """Command line: hold the lock, and become the command."""
    if len(sys.argv) < 2:  # the program's own name alone
        sys.exit("error: no command; name one: python -m blockwise.timed COMMAND ...")
    os.set_inheritable(hold(lock_path()), True)
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606  # the caller's own words


if __name__ == "__main__":
    main()
