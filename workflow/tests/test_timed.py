"""The lock of what is timed: held by a process, looked at by others, gone with its holder."""

import os
import subprocess
import sys
import time

from blockwise.timed import LOCK_FILE, hold, stand_aside


def test_nobody_waits_where_nothing_is_timed(tmp_path):
    said = []
    stand_aside(tmp_path / LOCK_FILE, said.append)
    stand_aside(tmp_path / LOCK_FILE, said.append)
    assert said == []


def test_two_that_time_do_not_wait_for_each_other(tmp_path):
    for descriptor in [hold(tmp_path / LOCK_FILE), hold(tmp_path / LOCK_FILE)]:
        os.close(descriptor)


def test_work_stands_aside_until_the_timed_command_ends(tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(1.5)"]
    timed = subprocess.Popen(
        [sys.executable, "-m", "blockwise.timed", *command],
        env=environment,
        stdout=subprocess.PIPE,
    )
    assert timed.stdout is not None
    timed.stdout.readline()  # the command runs, so the lock is held
    begin_s, said = time.monotonic(), []
    stand_aside(tmp_path / LOCK_FILE, said.append)
    assert time.monotonic() - begin_s > 1
    assert said == ["something timed plays on this machine: training waits", "training goes on"]
    assert timed.wait(timeout=30) == 0


def test_the_lock_goes_with_a_killed_holder(tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(600)"]
    timed = subprocess.Popen(
        [sys.executable, "-m", "blockwise.timed", *command],
        env=environment,
        stdout=subprocess.PIPE,
    )
    assert timed.stdout is not None
    timed.stdout.readline()
    timed.kill()
    timed.wait(timeout=30)
    said = []
    stand_aside(tmp_path / LOCK_FILE, said.append)
    assert said == []


def test_the_command_keeps_its_status_and_none_is_refused():
    run = [sys.executable, "-m", "blockwise.timed"]
    failing = [sys.executable, "-c", "raise SystemExit(7)"]
    assert subprocess.run([*run, *failing], check=False).returncode == 7
    refused = subprocess.run(run, check=False, capture_output=True, text=True)
    assert "no command; name one" in refused.stderr
