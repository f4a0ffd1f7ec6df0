"""Which processes of a run are told to end."""

import subprocess
import sys
import time

import psutil

from blockwise.run.stop_jobs import jobs_at_work

SLEEP = f"{sys.executable} -c 'import time; time.sleep(60)'"
PARENT = """
import os, signal, subprocess, sys
from blockwise.run.stop_jobs import stop_jobs_on_sigterm
signal.signal(signal.SIGTERM, lambda number, frame: print("as before", flush=True))
stop_jobs_on_sigterm()
job = subprocess.Popen(["bash", "-c", sys.argv[1]])
print("started", flush=True)
print("ended", job.wait() != 0, flush=True)
"""


def test_a_job_is_found_behind_its_shells_and_its_scribe_is_left_alone():
    shell = subprocess.Popen(["bash", "-c", f"( {SLEEP} 2> >(tee -a /dev/null) && true ) && true"])
    try:
        deadline_s = time.monotonic() + 30
        found = []
        while not found and time.monotonic() < deadline_s:
            found = [
                job for job in jobs_at_work(psutil.Process(shell.pid)) if "python" in job.name()
            ]
        (job,) = found
        assert "time.sleep(60)" in " ".join(job.cmdline())
    finally:
        for child in psutil.Process(shell.pid).children(recursive=True):
            child.kill()
        shell.wait()


def test_sigterm_ends_the_jobs_and_does_what_it_did_before():
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, f"{SLEEP} && true"], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout.readline() == "started\n"
    deadline_s = time.monotonic() + 30
    while not any("python" in one.name() for one in jobs_at_work(psutil.Process(parent.pid))):
        assert time.monotonic() < deadline_s
    parent.terminate()
    assert parent.communicate(timeout=30)[0] == "as before\nended True\n"
