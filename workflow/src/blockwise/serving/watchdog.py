"""A watchdog: runs one command and leaves nothing of it behind, whoever dies.

vLLM's API server, engine core and workers are separate processes; kill -9 of one orphans the
others, with gigabytes of memory and segments in /dev/shm. The watchdog stands between us and
the command. As a subreaper it stays the ancestor of everything the command ever starts. It
ends the whole tree when the command ends for any reason, when it gets a signal, or when our
process dies, which it learns twice: by a parent-death signal, and by the end of its standard
input, a pipe that only we hold. If the watchdog itself is killed the command gets SIGTERM
from the kernel, and what that leaves behind comes to the batch job, which sweeps too.

Left-over processes get SIGKILL, except Python's resource trackers: a tracker unlinks the
shared memory of its tree once all its clients are gone, so it is waited for.

    python -m blockwise.serving.watchdog [--grace S] [--cpus 0,1] -- COMMAND ...
"""

import argparse
import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil

from blockwise.serving.process_signals import become_subreaper, end_with_parent

GRACE_S = 10.0  # vLLM drains and unlinks its shared memory in 1 to 3 s
TRACKER_GRACE_S = 5.0  # a tracker needs milliseconds; on a stalled machine, seconds
GIVE_UP_S = 30.0  # beyond it a process hangs in the kernel, and waiting helps nobody
SWEEP_INTERVAL_S = 0.05
TRACKER_MARK = "multiprocessing.resource_tracker"
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Watchdog:
    """Runs a command and ends its whole tree."""

    def __init__(self, command: list[str], grace_s: float) -> None:
        self._grace_s = grace_s
        self._wakeups, wakeup = _signal_pipe()
        signal.set_wakeup_fd(wakeup)
        self._stop_signal: int | None = None
        for number in STOP_SIGNALS:
            signal.signal(number, self._note)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only to wake the poll
        self._main = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509  this process has one thread
        )

    def run(self) -> int:
        """Wait for the end, sweep, and return the exit code to pass on."""
        reason = self._wait()
        if self._main.poll() is None:
            self._main.terminate()
            try:
                self._main.wait(self._grace_s)
            except subprocess.TimeoutExpired:
                self._main.kill()
        code = self._main.wait()
        print(
            f"watchdog: {reason}; exit code {code}; {sweep()} left-over process(es) killed",
            file=sys.stderr,
            flush=True,
        )
        return code if code >= 0 else 128 - code

    def _note(self, number: int, _frame: object) -> None:
        self._stop_signal = number

    def _wait(self) -> str:
        """Sleep until the command ends, a signal arrives or standard input ends."""
        poll = select.poll()
        poll.register(self._wakeups, select.POLLIN)
        standard_input = sys.stdin.fileno()
        poll.register(standard_input, select.POLLIN | select.POLLHUP)
        while True:
            if self._main.poll() is not None:
                return "the command ended by itself"
            if self._stop_signal is not None:
                return f"stopped by {signal.Signals(self._stop_signal).name}"
            for descriptor, _ in poll.poll():
                received = os.read(descriptor, 4096)
                if descriptor == standard_input and not received:
                    return "the parent closed its pipe"


def sweep() -> int:
    """Kill every descendant but resource trackers, then wait for those; returns how many."""
    killed: set[int] = set()
    start_s = time.monotonic()
    while True:
        _reap()
        left = list(_descendants())
        waited_s = time.monotonic() - start_s
        if not left or waited_s > GIVE_UP_S:
            return len(killed)
        for process, is_tracker in left:
            if not is_tracker or waited_s > TRACKER_GRACE_S:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
                    killed.add(process.pid)
        time.sleep(SWEEP_INTERVAL_S)


def _descendants() -> Iterator[tuple[psutil.Process, bool]]:
    """Living descendants, each with whether it is a resource tracker."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                yield process, TRACKER_MARK in " ".join(process.cmdline())


def _reap() -> None:
    """Collect the dead orphans that became our children."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _signal_pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    return reading, writing


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Run a command and leave nothing of it behind.")
    parser.add_argument(
        "--grace", type=float, default=GRACE_S, help="seconds from SIGTERM to SIGKILL"
    )
    parser.add_argument("--cpus", help="the only logical CPUs that the command may run on")
    parser.add_argument("command", nargs="+", help="after --")
    arguments = parser.parse_args()
    if arguments.cpus:
        os.sched_setaffinity(0, {int(cpu) for cpu in arguments.cpus.split(",")})
    become_subreaper()
    end_with_parent()
    sys.exit(Watchdog(arguments.command, arguments.grace).run())


if __name__ == "__main__":
    main()
