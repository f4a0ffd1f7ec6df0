"""kill -9 of Snakemake in mid-run, on a managed server: nothing is left, nothing is lost."""

import signal
import subprocess

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

from leftovers import processes_of, shared_memory_of, wait_until
from serving_fixtures import tiny_backbone

pytestmark = pytest.mark.engine

DEATH_TIMEOUT_S = 60.0  # the watchdog's grace and vLLM's own shutdown
MID_RUN_TIMEOUT_S = 300.0  # a start of vLLM on a machine that others load


def test_a_killed_run_leaves_nothing_behind_and_resumes(tmp_path, project_folder):
    folder = copy_workflow(project_folder, tmp_path / "run").resolve()
    backbone = tiny_backbone(caption="random weights: timing only").model_dump(mode="json")
    datasets = {"hotpotqa": {**SMALL_DATASETS["hotpotqa"]}}
    datasets["hotpotqa"]["source"] = {**datasets["hotpotqa"]["source"], "num_rows": 40}
    datasets["hotpotqa"]["sessions"] = {"num_sessions": 3, "target_tokens": 3000}
    config = write_config(
        folder,
        {"tiny": backbone},
        datasets,
        {"compaction_end_to_end": {**SMALL_TIMING, "seeds": [0, 1]}},
    )
    with (folder / "first.log").open("wb") as log:
        first = subprocess.Popen(
            snakemake_command("--configfile", config),
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        wait_until(
            lambda: stored_units(folder) or first.poll() is not None,
            MID_RUN_TIMEOUT_S,
            "a finished timing block",
        )
        assert first.poll() is None, (folder / "first.log").read_text()[-3000:]
        segments = shared_memory_of(processes_of(folder))
        assert segments
        first.send_signal(signal.SIGKILL)
        first.wait()
    wait_until(
        lambda: not processes_of(folder), DEATH_TIMEOUT_S, f"the end of {processes_of(folder)}"
    )
    assert not [segment for segment in segments if segment.exists()]
    kept = stored_units(folder)
    assert 0 < len(kept) < 6

    status, said = run_snakemake(folder, "--unlock", "--configfile", config)
    assert status == 0, said
    status, said = run_snakemake(folder, "--rerun-incomplete", "--configfile", config)
    assert status == 0, said
    after = stored_units(folder)
    assert len(after) == 6
    assert {name: after[name] for name in kept} == kept
    rows = (folder / "results/small/tables/compaction_cells.csv").read_text().splitlines()
    assert len(rows) == 1 + 12
    assert len(set(rows)) == len(rows)
    assert not processes_of(folder)
