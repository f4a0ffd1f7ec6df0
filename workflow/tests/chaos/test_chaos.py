"""A short campaign on the model double, with a fixed seed; `make chaos` is the long one."""

import random
import shutil
import signal
import sys

import pytest
from rich.console import Console

from chaos import campaign
from chaos.decks import RunPlan
from chaos.faults import PASSING, Fault, WrongAnswer
from chaos.lab import Lab
from chaos.plans import CELLS, flipped, sent
from chaos.world import Role, Work, World
from leftovers import processes_of

FIRST = ("error_500", "half", "truncated_json", "wrong_count", "hang_up")
THEN = ("no_usage", "error_event", "half_then_done")


@pytest.fixture(scope="module")
def bench(tmp_path_factory, project_folder):
    return Lab(tmp_path_factory.mktemp("chaos"), project_folder).job()


def spread(behaviours):
    """Wrong answers so far apart that no request meets two of them, which would end the job."""
    return [
        WrongAnswer(PASSING[name], behaviour=name, number=5 + 12 * place)
        for place, name in enumerate(behaviours)
    ]


def test_a_dozen_faults_cost_nothing_and_leave_nothing(bench):
    rng = random.Random(0)
    watchdog = sent(Role.WATCHDOG, signal.SIGKILL)(rng, bench)
    watchdog.delay_s = 0.8 * bench.spans[Role.WATCHDOG]  # so late that something is finished
    first = [*spread(FIRST), watchdog]
    damage = flipped(f"{CELLS}/*/*/*.json")(rng, bench)
    job = sent(Role.JOB, signal.SIGKILL)(rng, bench)
    job.delay_s = 0.8 * bench.spans[Role.JOB]
    then = [*spread(THEN), damage, job]
    injections = campaign.endure(RunPlan("batch job", bench, [first, then]), 0)
    campaign.print_table(Console(width=100), injections)
    assert {one.problems for one in injections} == {()}
    assert len(injections) >= 6, [one.fault for one in injections]  # a slow machine meets fewer


class Theft(Fault):
    """A finished cell disappears and nobody is told."""

    def prepare(self, world):
        world.remember([])
        world.units()[0].unlink()
        self.has_struck = True


def idle_world(folder):
    """A finished world whose work does nothing any more."""
    work = Work((sys.executable, "-c", ""), (), "results/small", "compaction", frozenset())
    return World(folder, work)


def test_a_lost_cell_and_another_table_are_told(bench, tmp_path):
    shutil.copytree(bench.finished.folder, tmp_path / "w")
    world = idle_world(tmp_path / "w")
    Theft("theft").prepare(world)
    assert [line.partition(" ")[2] for line in world.lost_units()] == ["is gone"]
    other = {name: rows[:-1] if rows else rows for name, rows in bench.rows.items()}
    told = campaign.differences(bench, other)
    assert len(told) == sum(bool(rows) for rows in bench.rows.values())
    assert campaign.differences(bench, bench.rows) == []


def test_what_a_run_leaves_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("chaos.world.END_LIMIT_S", 0.2)
    world = idle_world(tmp_path)
    left = world.start([sys.executable, "-c", "import time; time.sleep(60)"])
    (tmp_path / ".snakemake" / "locks").mkdir(parents=True)
    (tmp_path / ".snakemake" / "locks" / "0.input.lock").touch()
    orphan, lock = world.leftovers()
    assert orphan.startswith(f"orphan {left.pid}: ")
    assert lock.endswith("0.input.lock")
    world.close()
    assert not processes_of(tmp_path)
