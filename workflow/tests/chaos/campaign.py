"""The fault campaign: work is broken in many ways, run again, and must end as if nothing happened.

    python -m chaos.campaign --seeds 12 --real 25

Several faults strike in every run of the work. Then it is typed again, plainly, and has to end
with the columns that repeat as an undisturbed run left them, with every finished cell still as it
was, and without an orphan, a segment of shared memory or a lock. Where that does not hold, every
fault of that run counts as lost: which of them did it is for a reader of the report to find.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from blockwise.artifacts import write_json
from blockwise.errors import BlockwiseError, run_command
from blockwise.provenance import (
    command_line,
    cpu_model,
    git_state,
    host_name,
    package_versions,
    utc_now,
)
from chaos.decks import RunPlan, plans_of_double, plans_of_real
from chaos.faults import Fault, SecondRun, can_mount
from chaos.lab import RESULTS, Bench, Lab, discard, disturb
from chaos.plans import DISKS
from chaos.world import Rows, World

PROJECT = Path(__file__).parents[3]
LINE_CHARS = 120
MINUTES_ON_VLLM = 17.0  # that the runs on a real server need: each start of it takes half a minute
VERIFY = (sys.executable, "-m", "blockwise.run.verify", str(RESULTS), "--repair")


@dataclass(frozen=True)
class Injection:
    """One fault that struck, and what became of its run."""

    fault: str
    work: str
    on_vllm: bool
    run: int
    problems: tuple[str, ...]  # of the whole run; empty: survived
    recovery_s: float  # the plain rerun that ended with everything whole
    num_reruns: int

    @property
    def is_lost(self) -> bool:
        return bool(self.problems)


class LostError(BlockwiseError):
    """A fault cost something, or left something behind."""


def endure(plan: RunPlan, run: int) -> list[Injection]:
    """Break one piece of work as planned, run it again, and see what is left."""
    bench: Bench = plan.bench
    world = bench.done() if plan.begins_finished else bench.fresh()
    faults = [fault for attempt in plan.attempts for fault in attempt]
    problems: list[str] = []
    try:
        for attempt in plan.attempts:
            world.clear_the_way()  # the attempt before may have left its lock
            problems += (verified if plan.begins_finished else disturb)(world, attempt)
        begin_s, num_reruns = time.monotonic(), 1
        failure = world.run_again()
        if failure is not None and any(fault.is_damage for fault in faults):
            num_reruns = 2  # the first found the damage and put it out of the way
            failure = world.run_again()
        recovery_s = time.monotonic() - begin_s
        problems += [failure] if failure else differences(bench, world.rows())
        problems += world.leftovers()
        if not any(isinstance(fault, SecondRun) for fault in faults):  # it plays cells twice
            problems += world.lost_units()
    finally:
        discard(world, list(DISKS))
    struck = [fault.name for fault in faults if fault.has_struck]
    if problems and not struck:
        struck = ["nothing that was planned"]
    of_run = (plan.name, bench.work.is_real, run, tuple(problems), recovery_s, num_reruns)
    return [Injection(name, *of_run) for name in struck]


def verified(world: World, faults: Sequence[Fault]) -> list[str]:
    """Damage what is finished and have it repaired; what the repair does not name."""
    world.remember([])
    for fault in faults:
        fault.prepare(world)
    said = world.run(VERIFY)[1]
    names = [path.name for path in world.damaged]
    return [f"verify does not name {name}" for name in names if name not in said]


def differences(bench: Bench, rows: dict[str, Rows]) -> list[str]:
    """Tables that do not end as an undisturbed run's, each with its first other row."""
    problems = []
    for name, expected in bench.rows.items():
        found = rows[name]
        if len(found) != len(expected):
            problems.append(f"table {name}: {len(found)} rows, not {len(expected)}")
        elif found != expected:
            one, other = next(
                pair for pair in zip(found, expected, strict=True) if len(set(pair)) > 1
            )
            values = [
                f"{a[0]} {a[1]!r}, not {b[1]!r}" for a, b in zip(one, other, strict=True) if a != b
            ]
            problems.append(f"table {name}: {'; '.join(values)} in {one[:6]}")
    return problems


def campaign(
    plans: Sequence[RunPlan], console: Console, deadline_s: float, wanted: int
) -> list[Injection]:
    """Run plans until so many faults have struck, or the time is over."""
    injections: list[Injection] = []
    for run, plan in enumerate(plans):
        if len(injections) >= wanted or time.monotonic() > deadline_s:
            break
        begin_s = time.monotonic()
        struck = endure(plan, run)
        injections += struck
        names = ", ".join(one.fault for one in struck) or "nothing struck"
        console.print(f"{len(injections):4}  {plan.name}: {names}", end=" ")
        console.print(f"({time.monotonic() - begin_s:.0f} s)")
        for problem in struck[0].problems if struck else ():
            console.print(f"      LOST: {problem}", style="red")
    return injections


def print_table(console: Console, injections: Sequence[Injection]) -> None:
    """Fault, injected, survived, lost, median recovery: a line a fault."""
    table = Table("fault", "injected", "on vLLM", "survived", "lost", "median recovery")
    rows: dict[str, list[Injection]] = {}
    for one in injections:
        rows.setdefault(one.fault, []).append(one)
    for name, struck in [*sorted(rows.items()), ("all", list(injections))]:
        if not struck:
            continue
        lost = sum(one.is_lost for one in struck)
        median_s = statistics.median(one.recovery_s for one in struck)
        on_vllm = sum(one.on_vllm for one in struck)
        counts = (len(struck), on_vllm, len(struck) - lost, lost)
        table.add_row(name, *map(str, counts), f"{median_s:.1f} s")
    console.print(table)


def publish(path: Path, injections: Sequence[Injection], skipped: Sequence[str]) -> None:
    """Write every injection with its provenance."""
    commit, dirty = git_state()
    report = {
        "schema_version": 1,
        "injections": [asdict(one) for one in injections],
        "skipped": list(skipped),
        "commit": commit,
        "dirty": dirty,
        "packages": package_versions(),
        "host": host_name(),
        "cpu_model": cpu_model(),
        "command": command_line(),
        "written_at": utc_now(),
    }
    write_json(path, report)


def main() -> None:
    """Command line of the campaign."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default: 0)")
    parser.add_argument("--faults", type=int, default=185, help="on the double (default: 185)")
    parser.add_argument("--real", type=int, default=25, help="on a real vLLM (default: 25)")
    parser.add_argument("--minutes", type=float, default=38.0, help="no run begins after them")
    parser.add_argument("--output", type=Path, default=Path("results/chaos/campaign.json"))
    arguments = parser.parse_args()
    begin_s = time.monotonic()
    deadline_s = begin_s + 60 * arguments.minutes
    console = Console(width=LINE_CHARS, highlight=False, soft_wrap=True)
    injections: list[Injection] = []
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        lab, rng = Lab(Path(scratch), PROJECT), random.Random(arguments.seed)
        has_disks = can_mount(Path(scratch))
        skipped = [] if has_disks else ["disk full: this user may not mount a tmpfs"]
        skipped += [] if lab.clock else ["clock jumps: there is no C compiler"]
        for reason in skipped:
            console.print(f"skipped: {reason}")
        if arguments.faults:
            plans = plans_of_double(lab, rng, has_disks=has_disks)
            kept_s = MINUTES_ON_VLLM * 60 if arguments.real else 0
            injections += campaign(plans, console, deadline_s - kept_s, arguments.faults)
        if arguments.real:
            plans = plans_of_real(lab, rng)
            injections += campaign(plans, console, deadline_s, arguments.real)
    print_table(console, injections)
    publish(arguments.output, injections, skipped)
    console.print(f"{time.monotonic() - begin_s:.0f} s; every injection: {arguments.output}")
    lost = sum(one.is_lost for one in injections)
    short = len(injections) < arguments.faults + arguments.real
    if lost or short:
        raise LostError(
            f"{lost} of {len(injections)} faults lost something (must be 0), and "
            f"{arguments.faults + arguments.real} were to be injected; the lines above say which"
        )


if __name__ == "__main__":
    run_command(main)
