"""What every benchmark prints and writes: figures, each with its range and its goal."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from blockwise.provenance import (
    code_digest,
    command_line,
    cpu_model,
    git_state,
    host_name,
    package_versions,
    utc_now,
)

LINE_CHARS = 120  # a line a figure, in a terminal and in a log


@dataclass(frozen=True)
class Figure:
    """One measured figure: its middle and range over rounds, and what it should be."""

    name: str
    unit: str
    median: float
    low: float
    high: float
    num_rounds: int
    goal: float
    at_least: bool  # the goal is a floor; otherwise a ceiling

    @property
    def is_met(self) -> bool:
        """Whether the median reaches the goal."""
        return self.median >= self.goal if self.at_least else self.median <= self.goal


def figure(name: str, unit: str, values: Sequence[float], goal: float, at_least: bool) -> Figure:
    """The figure of a list of rounds."""
    middle = statistics.median(values)
    return Figure(name, unit, middle, min(values), max(values), len(values), goal, at_least)


def print_figures(figures: Sequence[Figure]) -> None:
    """A line a figure, with its goal."""
    table = Table("figure", "median", "range", "n", "goal", "", padding=(0, 1))
    for one in figures:
        sign = "at least" if one.at_least else "at most"
        table.add_row(
            one.name,
            f"{one.median:.3g} {one.unit}",
            f"{one.low:.3g} to {one.high:.3g}",
            str(one.num_rounds),
            f"{sign} {one.goal:.3g}",
            "met" if one.is_met else "MISSED",
        )
    Console(width=LINE_CHARS).print(table)


def report(benchmark: str, subject: str, figures: Sequence[Figure], module: str) -> dict[str, Any]:
    """The figures and what they were measured with.

    Args:
        benchmark: its name.
        subject: the backbone or model that was measured.
        figures: what was measured.
        module: whose code digest is kept.
    """
    commit, dirty = git_state()
    return {
        "schema_version": 1,
        "benchmark": benchmark,
        "subject": subject,
        "figures": [{**asdict(one), "is_met": one.is_met} for one in figures],
        "code_digest": code_digest(module),
        "commit": commit,
        "dirty": dirty,
        "packages": package_versions(),
        "host": host_name(),
        "cpu_model": cpu_model(),
        "command": command_line(),
        "written_at": utc_now(),
    }
