"""The watchdog leaves no process and no shared memory behind, whoever dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

TREE = Path(__file__).with_name("process_tree.py")
LEVELS = ("root", "child", "grandchild")
WATCHDOG = [sys.executable, "-m", "blockwise.serving.watchdog", "--grace", "0.5", "--"]
LIMIT_S = 30.0


def wait_until(condition) -> bool:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Tree:
    """A running tree: process ids and shared memory by level."""

    def __init__(self, folder: Path) -> None:
        assert wait_until(lambda: all((folder / level).exists() for level in LEVELS))
        entries = {level: (folder / level).read_text().split() for level in LEVELS}
        self.pids = {level: int(pid) for level, (pid, _) in entries.items()}
        self.segments = [Path("/dev/shm") / name for _, name in entries.values()]
        assert all(segment.exists() for segment in self.segments)

    def assert_gone(self) -> None:
        assert wait_until(lambda: all(map(is_gone, self.pids.values())))
        assert wait_until(lambda: not any(segment.exists() for segment in self.segments))


def start(folder: Path, kind: str = "obedient", **options) -> "subprocess.Popen[bytes]":
    command = [*WATCHDOG, sys.executable, str(TREE), str(folder), "0", kind]
    return subprocess.Popen(command, stdin=subprocess.PIPE, **options)


@pytest.mark.parametrize("kind", ["obedient", "stubborn"])
def test_sigterm_ends_the_tree(tmp_path, kind):
    watchdog = start(tmp_path, kind)
    tree = Tree(tmp_path)
    watchdog.terminate()
    assert watchdog.wait(LIMIT_S) == (128 + signal.SIGKILL if kind == "stubborn" else 143)
    tree.assert_gone()


def test_kill_9_of_the_command_ends_the_rest(tmp_path):
    watchdog = start(tmp_path, "stubborn", stderr=subprocess.PIPE)
    tree = Tree(tmp_path)
    os.kill(tree.pids["root"], signal.SIGKILL)
    assert watchdog.wait(LIMIT_S) == 128 + signal.SIGKILL
    tree.assert_gone()
    assert b"the command ended by itself" in watchdog.stderr.read()


def test_the_end_of_standard_input_ends_the_tree(tmp_path):
    watchdog = start(tmp_path, "stubborn")
    tree = Tree(tmp_path)
    watchdog.stdin.close()
    watchdog.wait(LIMIT_S)
    tree.assert_gone()


def test_kill_9_of_the_parent_ends_the_tree_even_if_the_pipe_stays_open(tmp_path):
    reading, writing = os.pipe()  # both ends stay open here, so only the kernel's signal tells
    command = [*WATCHDOG, sys.executable, str(TREE), str(tmp_path), "0", "stubborn"]
    script = "import subprocess, sys, time; subprocess.Popen(sys.argv[1:]); time.sleep(120)"
    parent = subprocess.Popen([sys.executable, "-c", script, *command], stdin=reading)
    tree = Tree(tmp_path)
    parent.kill()
    parent.wait()
    tree.assert_gone()
    os.close(reading)
    os.close(writing)


def test_kill_9_of_the_watchdog_reaches_an_obedient_command(tmp_path):
    watchdog = start(tmp_path)
    tree = Tree(tmp_path)
    watchdog.kill()
    assert wait_until(lambda: is_gone(tree.pids["root"]))
    for level in LEVELS[1:]:  # beyond its reach here; a server ends its own children
        os.kill(tree.pids[level], signal.SIGKILL)
    tree.assert_gone()


def test_the_exit_code_is_passed_on():
    command = [*WATCHDOG, sys.executable, "-c", "raise SystemExit(7)"]
    assert subprocess.Popen(command, stdin=subprocess.PIPE).wait(LIMIT_S) == 7


def test_an_idle_watchdog_uses_no_processor_time(tmp_path):
    watchdog = start(tmp_path)
    tree = Tree(tmp_path)
    before = psutil.Process(watchdog.pid).cpu_times()
    time.sleep(1.0)
    after = psutil.Process(watchdog.pid).cpu_times()
    assert after.user + after.system - before.user - before.system < 0.05
    watchdog.terminate()
    watchdog.wait(LIMIT_S)
    tree.assert_gone()


def test_a_command_runs_on_the_cpus_it_was_given():
    cpu = str(min(os.sched_getaffinity(0)))
    asks = "import os; print(os.sched_getaffinity(0))"
    command = [*WATCHDOG[:-1], "--cpus", cpu, "--", sys.executable, "-c", asks]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as watchdog:
        assert watchdog.stdout.readline() == f"{{{cpu}}}\n".encode()
