"""Which faults a run meets: dealt from shuffled decks, so that every kind has its turn."""

import random
import signal
from collections.abc import Callable, Sequence

from chaos.faults import (
    FATAL,
    PASSING,
    WORDS,
    ClockJump,
    DeletedState,
    Fault,
    FlippedBits,
    FullDisk,
    SecondRun,
    Signal,
    WrongAnswer,
)
from chaos.lab import CHECKPOINTS, RESULTS, Bench
from chaos.world import Role

Maker = Callable[[random.Random, Bench], Fault]
CELLS = f"{RESULTS}/cells"
TABLES, FIGURES = f"{RESULTS}/tables", "figures/small"
DAY_S = 86400.0
DISKS = {
    CELLS: ("disk full: cells", 40_000),
    TABLES: ("disk full: tables", 20_000),
    FIGURES: ("disk full: figures", 60_000),
    str(CHECKPOINTS): ("disk full: checkpoints", 300_000),
}
"""What is written there, and how many bytes are left at most: the work needs more."""
FLIPS = {
    f"{CELLS}/*/*/*.json": "flipped bit: cell",
    f"{CELLS}/training_runs/*/*.json": "flipped bit: training run",
    f"{TABLES}/*.csv": "flipped bit: table",
    f"{FIGURES}/*.*": "flipped bit: figure",
    f"{CHECKPOINTS}/*/*/*.distcp": "flipped bit: checkpoint",
    f"{CHECKPOINTS}/*/*/*.json": "flipped bit: card of a checkpoint",
}


class Deck:
    """Deals what it holds in random order, again and again."""

    def __init__(self, makers: Sequence[Maker], rng: random.Random) -> None:
        self._makers, self._rng = list(makers), rng
        self._left: list[Maker] = []

    def deal(self, bench: Bench) -> Fault:
        if not self._left:
            self._left = self._rng.sample(self._makers, len(self._makers))
        return self._left.pop()(self._rng, bench)


def sent(role: Role, number: signal.Signals, *, to_group: bool = False) -> Maker:
    """A signal at a random moment of the life of a process."""
    name = f"{WORDS[number]}: {role.value}" + (" and all it started" if to_group else "")

    def make(rng: random.Random, bench: Bench) -> Fault:
        delay_s = rng.uniform(0, bench.spans[role])
        return Signal(name, role=role, number=number, delay_s=delay_s, to_group=to_group)

    return make


def killed(*roles: Role) -> list[Maker]:
    return [sent(role, signal.SIGKILL) for role in roles]


def stopped(role: Role) -> list[Maker]:
    """Asked to end, by a scheduler or by somebody at a terminal."""
    return [sent(role, signal.SIGTERM), sent(role, signal.SIGINT, to_group=True)]


def answered(behaviour: str) -> Maker:
    """A wrong answer somewhere among the first half of those of an undisturbed run."""
    name = {**PASSING, **FATAL}[behaviour]

    def make(rng: random.Random, bench: Bench) -> Fault:
        number = rng.randrange(1, bench.num_answers // 2)
        return WrongAnswer(name, behaviour=behaviour, number=number)

    return make


def full_disk(place: str) -> Maker:
    name, most_bytes = DISKS[place]
    return lambda rng, bench: FullDisk(name, place, rng.randrange(most_bytes))


def flipped(pattern: str) -> Maker:
    return lambda rng, bench: FlippedBits(FLIPS[pattern], pattern, rng)


def clock(rng: random.Random, bench: Bench) -> Fault:
    jump_s = rng.choice([-1, 1]) * rng.uniform(60, 2 * DAY_S)
    name = f"the clock jumps {'back' if jump_s < 0 else 'ahead'}"
    return ClockJump(name, jump_s, rng.uniform(0, bench.wall_s), rng)


def second(rng: random.Random, bench: Bench) -> Fault:
    return SecondRun("a second run at once", rng.uniform(0, bench.wall_s * 0.7))


def state_deleted(rng: random.Random, bench: Bench) -> Fault:
    return DeletedState("a deleted .snakemake", rng.uniform(0, bench.wall_s))


def disks(*places: str, can_mount: bool) -> list[Maker]:
    return [full_disk(place) for place in places] if can_mount else []


def clocks(bench: Bench) -> list[Maker]:
    return [clock] if bench.has_clock else []
