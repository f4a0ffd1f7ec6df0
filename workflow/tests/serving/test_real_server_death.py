"""A real vLLM server leaves nothing behind, whichever of its processes is killed."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from blockwise.serving.devices import LOCK_FOLDER_VARIABLE

pytestmark = [pytest.mark.engine, pytest.mark.slow]

START_LIMIT_S = 300.0
END_LIMIT_S = 60.0
JOB = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from blockwise.artifacts import read_model
    from blockwise.models.prepared_model import PreparedModel
    from blockwise.serving.server import managed_server, raise_on_sigterm
    from serving_fixtures import tiny_backbone

    raise_on_sigterm()
    model = read_model(Path(sys.argv[1]), PreparedModel)
    with managed_server("tiny", tiny_backbone(), model, Path(sys.argv[2]), print) as server:
        print("healthy", flush=True)
        while server.is_alive():
            time.sleep(0.1)
""")


def shared_memory_of(processes) -> set[Path]:
    found = set()
    for process in processes:
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        found |= {Path(name) for name in re.findall(r"(/dev/shm/\S+)", maps)}
    return found


@pytest.mark.parametrize("victim", ["job", "server", "EngineCore", "Worker"])
def test_kill_9_leaves_nothing(tiny_model, tmp_path, victim):
    model = tmp_path / "model.json"
    model.write_text(tiny_model.model_dump_json())
    environment = {
        **os.environ,
        LOCK_FOLDER_VARIABLE: str(tmp_path / "locks"),
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    job = subprocess.Popen(
        [sys.executable, "-c", JOB, str(model), str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    while job.stdout.readline() != "healthy\n":
        assert job.poll() is None
    tree = psutil.Process(job.pid).children(recursive=True)
    watchdog, server = tree[0], tree[1]
    segments = shared_memory_of(tree)
    assert segments
    named = {process.name(): process.pid for process in tree}
    pids = {"job": job.pid, "server": server.pid}
    pids |= {
        role: pid
        for role in ("EngineCore", "Worker")
        for name, pid in named.items()
        if role in name
    }
    os.kill(pids[victim], signal.SIGKILL)
    gone, alive = psutil.wait_procs(tree, timeout=END_LIMIT_S)
    assert not alive
    assert watchdog in gone
    deadline = time.monotonic() + END_LIMIT_S
    while left := [segment for segment in segments if segment.exists()]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    assert job.wait(END_LIMIT_S) == (-signal.SIGKILL if victim == "job" else 0)
