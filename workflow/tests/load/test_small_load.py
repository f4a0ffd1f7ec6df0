"""What keeps twenty thousand cells bearable, seen on a few hundred: work and memory stay linear."""

import tracemalloc

import pytest

from blockwise import artifacts
from blockwise.compaction.store import CellStore
from blockwise.tables.compaction.parts.load import load_batches
from load.made_up_run import (
    CELLS_PER_SEED,
    fill_store,
    make_job,
    make_plan,
    make_sessions,
    write_batch,
)
from load.work import PROMPTS

MEMORY_PER_CELL_BYTES = 45_000  # five requests with 400 characters each; 41 kB were measured


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Plan and folder of finished runs of one and of two seeds."""
    made = {}
    for num_seeds in (1, 2):
        folder = tmp_path_factory.mktemp("run")
        plan = make_plan(num_seeds, PROMPTS)
        fill_store(plan, folder / "cells")
        write_batch(plan, folder / "cells", folder / "batch.json")
        made[num_seeds] = (plan, folder)
    return made


@pytest.fixture
def reads(monkeypatch):
    """Paths of the artifacts that are read."""
    paths = []
    read = artifacts.read_json
    monkeypatch.setattr(artifacts, "read_json", lambda path: paths.append(path) or read(path))
    return paths


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_a_finished_job_reads_each_unit_once_and_plays_nothing(runs, reads, num_seeds):
    plan, folder = runs[num_seeds]
    assert sum(len(unit.cells) for unit in plan.units) == CELLS_PER_SEED * num_seeds
    job = make_job(plan, CellStore(folder / "cells", print))
    job.play_missing(None, folder / "server.log")
    job.batch(make_sessions(), "")
    assert len(reads) == len(set(reads)) == len(plan.units) + 1  # and the engine card


def test_the_memory_of_loaded_cells_grows_with_their_number_alone(runs):
    peaks = {}
    for num_seeds, (_, folder) in runs.items():
        tracemalloc.start()
        cells = load_batches([folder / "batch.json"], folder / "cells")
        peaks[num_seeds] = tracemalloc.get_traced_memory()[1] / len(cells)
        tracemalloc.stop()
        assert len(cells) == CELLS_PER_SEED * num_seeds
    assert peaks[2] < MEMORY_PER_CELL_BYTES
    assert peaks[2] < 1.2 * peaks[1]
