"""The runs of a campaign: endless plans, each a few faults for one piece of work."""

import random
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from chaos.faults import FATAL, PASSING, Fault
from chaos.lab import CHECKPOINTS, FIGURE, TABLE, Bench, Lab
from chaos.plans import (
    CELLS,
    FIGURES,
    FLIPS,
    TABLES,
    Deck,
    answered,
    clocks,
    disks,
    flipped,
    killed,
    second,
    sent,
    state_deleted,
    stopped,
)
from chaos.world import Role

HEELS_S = 0.6  # within which one of a chain follows the one before


@dataclass(frozen=True)
class RunPlan:
    """What befalls one run: in each attempt some faults, then the plain rerun."""

    name: str
    bench: Bench
    attempts: Sequence[Sequence[Fault]]
    begins_finished: bool = False  # damage of what is there already; `verify` finds and repairs it


def job_plans(bench: Bench, rng: random.Random, *, has_disks: bool) -> Iterator[RunPlan]:
    """The batch job: wrong answers, and something that ends it, twice; then a cell is damaged."""
    ends = Deck(
        [
            *killed(Role.JOB, Role.JOB, Role.WATCHDOG, Role.SERVER, Role.SERVER),
            *stopped(Role.JOB),
            *disks(CELLS, can_mount=has_disks),
            *clocks(bench),
            second,
            *(answered(behaviour) for behaviour in FATAL),
        ],
        rng,
    )
    wrong = Deck([answered(behaviour) for behaviour in PASSING], rng)
    flips = Deck([flipped(f"{CELLS}/*/*/*.json")], rng)
    while True:
        first = [*(wrong.deal(bench) for _ in range(5)), ends.deal(bench)]
        then = [*(wrong.deal(bench) for _ in range(4)), ends.deal(bench), flips.deal(bench)]
        yield RunPlan("batch job", bench, [first, then])


def training_plans(bench: Bench, rng: random.Random, *, has_disks: bool) -> Iterator[RunPlan]:
    """The training job: ended twice, then its checkpoint or a finished run is damaged."""
    ends = Deck(
        [
            *killed(Role.TRAINING, Role.TRAINING, Role.TRAINING),
            *stopped(Role.TRAINING),
            *disks(str(CHECKPOINTS), can_mount=has_disks),
            *clocks(bench),
        ],
        rng,
    )
    patterns = [pattern for pattern in FLIPS if "checkpoints" in pattern or "training" in pattern]
    flips = Deck([flipped(pattern) for pattern in (*patterns, patterns[1])], rng)
    while True:
        first, then = [ends.deal(bench)], [flips.deal(bench), ends.deal(bench)]
        yield RunPlan("training job", bench, [first, then])


def workflow_plans(bench: Bench, rng: random.Random, *, has_disks: bool) -> Iterator[RunPlan]:
    """Snakemake with its tables and a figure: ended twice in the middle of anything."""
    ends = Deck(
        [
            *killed(Role.SNAKEMAKE, Role.SNAKEMAKE, Role.JOB, Role.TABLES, Role.FIGURES),
            *stopped(Role.SNAKEMAKE),
            *disks(TABLES, FIGURES, can_mount=has_disks),
        ],
        rng,
    )
    strange = Deck([second, state_deleted, *clocks(bench)], rng)
    wrong = Deck([answered(behaviour) for behaviour in PASSING], rng)
    while True:
        first = [strange.deal(bench), wrong.deal(bench), wrong.deal(bench), ends.deal(bench)]
        yield RunPlan("workflow", bench, [first, [ends.deal(bench), strange.deal(bench)]])


def damage_plans(bench: Bench, rng: random.Random) -> Iterator[RunPlan]:
    """A finished run whose tables, figures and cells are damaged."""
    patterns = (f"{TABLES}/*.csv", f"{TABLES}/*.csv", f"{FIGURES}/*.*", f"{CELLS}/*/*/*.json")
    while True:
        faults = [flipped(pattern)(rng, bench) for pattern in patterns]
        yield RunPlan("finished workflow", bench, [faults], begins_finished=True)


def real_plans(bench: Bench, rng: random.Random) -> Iterator[RunPlan]:
    """Snakemake on a real vLLM: a process of every kind, from the inside out.

    Each of a chain is a moment behind the one before: what the one leaves undone when it dies is
    what the next would have relied on.
    """
    rings = [
        Deck(killed(Role.SERVER, Role.ENGINE, Role.WORKER, Role.WATCHDOG), rng),
        Deck([*killed(Role.JOB), sent(Role.JOB, signal.SIGTERM)], rng),
        Deck([*killed(Role.SNAKEMAKE), *stopped(Role.SNAKEMAKE)], rng),
    ]
    while True:
        attempts = []
        for _ in range(3):
            chain = [ring.deal(bench) for ring in rings]
            for one, other in pairwise(chain):
                other.after, other.delay_s = one, rng.uniform(0, HEELS_S)
            attempts.append(chain)
        yield RunPlan("workflow on vLLM", bench, attempts)


def plans_of_double(lab: Lab, rng: random.Random, *, has_disks: bool) -> Iterator[RunPlan]:
    """Plans of all kinds of work on the model double, in turn."""
    job, training = lab.job(), lab.training()
    short = lab.workflow(str(TABLE), str(FIGURE))
    whole = lab.workflow()
    kinds = [
        job_plans(job, rng, has_disks=has_disks),
        training_plans(training, rng, has_disks=has_disks),
        workflow_plans(short, rng, has_disks=has_disks),
        damage_plans(whole, rng),
    ]
    pattern = (0, 1, 0, 2, 1, 0, 2, 3)
    while True:
        yield from (next(kinds[number]) for number in pattern)


def plans_of_real(lab: Lab, rng: random.Random) -> Iterator[RunPlan]:
    yield from real_plans(lab.real(), rng)
