import subprocess
import sys

import pytest

from blockwise.run import run_lock

UNLOCK = [sys.executable, "-c", "import os; os.unlink('.snakemake/locks/0.input.lock')"]


@pytest.fixture
def locked(tmp_path):
    locks = tmp_path / ".snakemake/locks"
    locks.mkdir(parents=True)
    (locks / "0.input.lock").write_text("results\n")
    return tmp_path


@pytest.fixture
def worker(locked):
    """A live process that looks like a job of a run in the locked folder."""
    package = locked / "blockwise"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "play.py").write_text("import time\nprint('up', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "blockwise.play"],
        cwd=locked,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(locked)},
    )
    assert process.stdout.readline() == b"up\n"
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("command", "role"),
    [
        (["/x/.venv/bin/python3.11", "/x/.venv/bin/snakemake", "--cores", "all"], "snakemake"),
        (["python", "-m", "snakemake", "--cores", "2"], "snakemake"),
        (["python3", "-m", "blockwise.tables.write", "--x"], "blockwise.tables.write"),
        (["python3", "-m", "pytest", "snakemake"], None),
        (["vim", "-m", "blockwise.tables"], None),
        (["python"], None),
        ([], None),
    ],
)
def test_commands_of_a_run_are_recognised(command, role):
    assert run_lock.classify_command(command) == role


def test_without_a_lock_nothing_is_done(tmp_path):
    assert run_lock.clear_the_way(tmp_path, ["false"]) is None


def test_a_stale_lock_is_removed_and_said(locked):
    assert "was removed" in run_lock.clear_the_way(locked, UNLOCK)
    assert not run_lock.is_locked(locked)


def test_a_job_that_outlived_its_snakemake_keeps_the_lock(locked, worker):
    with pytest.raises(run_lock.RunError, match=rf"blockwise\.play \(pid {worker.pid}\)"):
        run_lock.clear_the_way(locked, UNLOCK, grace_s=0.1)
    assert run_lock.is_locked(locked)


def test_a_job_that_ends_within_the_grace_time_is_waited_for(locked, worker):
    worker.terminate()
    worker.wait()
    assert run_lock.clear_the_way(locked, UNLOCK, grace_s=5) is not None


def test_a_run_in_another_folder_does_not_count(locked, worker, tmp_path_factory):
    assert run_lock.find_workers(tmp_path_factory.mktemp("other")) == []


def test_a_lock_that_stays_is_an_error_with_the_reason(locked):
    failing = [sys.executable, "-c", "import sys; sys.exit('no such profile')"]
    with pytest.raises(run_lock.RunError, match="no such profile"):
        run_lock.clear_the_way(locked, failing)
