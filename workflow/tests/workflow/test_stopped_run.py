"""A run that is told to stop: the cell in play ends, and the last line says what next."""

import re
import signal
import subprocess
import sys
import time

import pytest
from workspace import (
    SMALL_DATASETS,
    SMALL_TIMING,
    copy_workflow,
    run_snakemake,
    snakemake_command,
    stored_units,
    write_config,
)

from blockwise.serving.devices import LOCK_FOLDER_VARIABLE
from leftovers import processes_of, wait_until
from serving_fixtures import tiny_backbone

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(1500)]

MID_RUN_TIMEOUT_S = 400.0  # a start of vLLM on a machine that others load
STOP_LIMIT_S = 90.0  # vLLM's own shutdown on such a machine; the cells left would take longer


@pytest.fixture
def prepared(tmp_path, project_folder):
    """A folder whose run plays a minute of timing blocks, and its configuration."""
    folder = copy_workflow(project_folder, tmp_path / "run").resolve()
    backbone = tiny_backbone(caption="random weights: timing only").model_dump(mode="json")
    hotpotqa = {
        **SMALL_DATASETS["hotpotqa"],
        "source": {**SMALL_DATASETS["hotpotqa"]["source"], "num_rows": 60},
        "sessions": {"num_sessions": 4, "target_tokens": 3000},
    }
    experiment = {**SMALL_TIMING, "seeds": list(range(8))}
    config = write_config(
        folder, {"tiny": backbone}, {"hotpotqa": hotpotqa}, {"compaction_end_to_end": experiment}
    )
    return folder, config


def _hear_ctrl_c():
    """A shell starts what it puts into the background deaf to it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _own_device_lock(monkeypatch, tmp_path):
    """Servers of others on this machine are waited for, and these tests count seconds."""
    monkeypatch.setenv(LOCK_FOLDER_VARIABLE, str(tmp_path / "locks"))


def stopped(command, folder, number):
    """What a command says that gets a signal after its first finished unit, and how it ends."""
    before = len(stored_units(folder))
    with (folder / "said.log").open("wb") as log:
        running = subprocess.Popen(
            command,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_hear_ctrl_c,  # noqa: PLW1509  one thread forks here
        )
        wait_until(
            lambda: len(stored_units(folder)) > before or running.poll() is not None,
            MID_RUN_TIMEOUT_S,
            "a finished timing block",
        )
        assert running.poll() is None, (folder / "said.log").read_text()[-3000:]
        running.send_signal(number)
        begin_s = time.monotonic()
        status = running.wait(STOP_LIMIT_S)
    assert time.monotonic() - begin_s < STOP_LIMIT_S
    wait_until(lambda: not processes_of(folder), STOP_LIMIT_S, f"{processes_of(folder)} to end")
    return status, (folder / "said.log").read_text()


def test_a_stopped_run_keeps_what_is_finished_and_goes_on(prepared):
    folder, config = prepared
    status, _ = stopped(snakemake_command("--configfile", config), folder, signal.SIGTERM)
    kept = stored_units(folder)
    assert status != 0
    assert 0 < len(kept) < 32
    again = [sys.executable, "-m", "blockwise", "reproduce", config, "--cores", "2"]
    status, said = stopped(again, folder, signal.SIGINT)
    assert status == 130
    assert said.splitlines()[-1].startswith("error: stopped; the same command goes on from here")
    assert "Traceback" not in said
    assert len(kept) < len(stored_units(folder)) < 32
    after = stored_units(folder)
    assert {name: after[name] for name in kept} == kept
    overall = re.findall(r"reproduce small: job \d+/\d+, (\d+)/64 cells, about \d+ min left", said)
    assert overall
    status, said = run_snakemake(folder, "--unlock", "--configfile", config)
    assert status == 0, said
