"""How much one machine carries: 256 sessions at once, 20,000 cells, 100,000 request records.

    pytest -m slow workflow/tests/load

Every piece of work has a process of its own, whose peak memory and CPU time are held against the
limits: that time is what the work takes on a core of its own, whoever else is busy. All of it
computes and waits for nothing; the time by the clock is printed beside it. workflow/docs/load.md
has the figures of one machine.
"""

import os
import resource
import time
from pathlib import Path

import pytest
import yaml

from blockwise.serving.http_json import get_json
from load.engine_double import running_double
from load.made_up_run import CELLS_PER_SEED, REQUESTS_PER_CELL, make_profile
from load.work import TESTS_FOLDER, measured
from workflow.workspace import copy_workflow, run_snakemake

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NUM_SEEDS = -(-20_000 // CELLS_PER_SEED)
NUM_CELLS = NUM_SEEDS * CELLS_PER_SEED
NUM_REQUESTS = NUM_CELLS * REQUESTS_PER_CELL
WORKFLOW_LIMIT_S = 15
TABLES_LIMIT_S = 60
JOB_LIMIT_S = 60
TABLES_LIMIT_MB = 1500
JOB_LIMIT_MB = 700
CLIENT_LIMIT_MB = 300  # that 256 sessions add to a client that has played none
NUM_SESSIONS = 256


@pytest.fixture
def say(capsys):
    """Prints a line whatever pytest does with output."""

    def line(text):
        with capsys.disabled():
            print(f"\n  {text}", end="")

    return line


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with the store and the batch of a finished run of so many cells."""
    folder = tmp_path_factory.mktemp("finished")
    assert measured("fill", NUM_SEEDS, folder)["num_cells"] == NUM_CELLS >= 20_000
    return folder


def test_tables_of_20_000_cells_and_100_000_requests(finished, say):
    done = measured("tables", finished)
    say(
        f"tables of {NUM_CELLS} cells, {done['num_requests']} requests: {done['cpu_s']:.1f} s of "
        f"CPU (limit {TABLES_LIMIT_S}; {done['wall_s']:.1f} by the clock), peak "
        f"{done['peak_mb']:.0f} MB (limit {TABLES_LIMIT_MB}), of "
        f"which {done['imported_mb']:.0f} MB are libraries"
    )
    assert done["num_requests"] == NUM_REQUESTS >= 100_000
    assert done["cpu_s"] < TABLES_LIMIT_S
    assert done["peak_mb"] < TABLES_LIMIT_MB


def test_a_batch_job_of_20_000_finished_cells_finds_nothing_to_play(finished, say):
    done = measured("finished_job", NUM_SEEDS, finished)
    say(
        f"batch job with all {done['num_cells']} cells finished: {done['cpu_s']:.1f} s of CPU "
        f"(limit {JOB_LIMIT_S}; {done['wall_s']:.1f} by the clock), peak {done['peak_mb']:.0f} MB "
        f"(limit {JOB_LIMIT_MB})"
    )
    assert done["num_cells"] == NUM_CELLS
    assert done["cpu_s"] < JOB_LIMIT_S
    assert done["peak_mb"] < JOB_LIMIT_MB


def test_the_workflow_starts_as_fast_with_20_000_cells(finished, say, tmp_path, project_folder):
    folder = copy_workflow(project_folder, tmp_path / "workflow")
    seconds, num_jobs = {}, {}
    for num_seeds in (1, NUM_SEEDS):
        config = folder / "config" / f"{num_seeds}.yaml"
        config.write_text(yaml.safe_dump(make_profile(num_seeds).model_dump(mode="json")))
        begin_s = cpu_of_children_s()
        status, said = run_snakemake(folder, "--dry-run", "--configfile", str(config))
        seconds[num_seeds] = cpu_of_children_s() - begin_s
        assert status == 0, said
        num_jobs[num_seeds] = said.split("Job stats:")[1].split("total")[1].split()[0]
    assert num_jobs[1] == num_jobs[NUM_SEEDS]
    pretend_finished(folder, config, finished)
    begin_s, clock_s = cpu_of_children_s(), time.perf_counter()
    status, said = run_snakemake(folder, "--configfile", str(config))
    no_op_s, clock_s = cpu_of_children_s() - begin_s, time.perf_counter() - clock_s
    assert status == 0, said
    assert "Nothing to be done" in said
    say(
        f"workflow with {NUM_CELLS} cells: dry run {seconds[NUM_SEEDS]:.1f} s of CPU, no-op run "
        f"{no_op_s:.1f} (limit {WORKFLOW_LIMIT_S} each; {clock_s:.1f} by the clock); dry "
        f"run with {CELLS_PER_SEED} cells "
        f"{seconds[1]:.1f} s; {num_jobs[1]} jobs in both"
    )
    assert seconds[NUM_SEEDS] < WORKFLOW_LIMIT_S
    assert no_op_s < WORKFLOW_LIMIT_S


def cpu_of_children_s():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def pretend_finished(folder, config, finished):
    """Every declared output is there, all of one age, and the cells lie beside them."""
    _, said = run_snakemake(folder, "--summary", "--configfile", str(config))
    lines = [line.split("\t") for line in said.splitlines() if line.startswith(("results", "fig"))]
    assert lines
    for path in (folder / line[0] for line in lines):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (1e9, 1e9))
    Path(folder, "results/t/cells").symlink_to(finished / "cells")


def test_256_sessions_side_by_side_on_one_client(say):
    took = {}
    with running_double(TESTS_FOLDER) as url:
        for num_sessions in (16, NUM_SESSIONS):
            took[num_sessions] = measured("sessions", url, num_sessions)
        told = get_json(f"{url}/told", "")
    many = took[NUM_SESSIONS]
    cpu_ms = 1e3 * many["client_cpu_s"] / many["num_requests"]
    added = {number: one["peak_mb"] - one["imported_mb"] for number, one in took.items()}
    say(
        f"{NUM_SESSIONS} sessions at once, {many['num_requests']} requests: "
        f"{many['wall_s']:.1f} s, {cpu_ms:.1f} ms of the client's CPU a request, at most "
        f"{told['most_open']} open; {added[NUM_SESSIONS]:.0f} MB more than before (limit "
        f"{CLIENT_LIMIT_MB}; 16 sessions: {added[16]:.0f})"
    )
    assert told["most_open"] == NUM_SESSIONS
    assert added[NUM_SESSIONS] < CLIENT_LIMIT_MB
