"""What every benchmark prints and writes: figures, each with all its rounds and its goal."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, computed_field
from rich.console import Console
from rich.table import Table

from blockwise.artifacts import write_model
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
FEWEST_ROUNDS = 6  # with which one of a dozen figures can be called slower (`bench.compare`)


class Figure(BaseModel):
    """One measured figure and what it should be."""

    model_config = ConfigDict(extra="ignore", frozen=True)  # what is computed is read over

    name: str
    unit: str
    rounds: tuple[float, ...]
    goal: float
    at_least: bool  # the goal is a floor; otherwise a ceiling

    @computed_field  # type: ignore[prop-decorator]
    @property
    def median(self) -> float:
        """Over the rounds."""
        return statistics.median(self.rounds)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def is_met(self) -> bool:
        """Whether the median reaches the goal."""
        return self.median >= self.goal if self.at_least else self.median <= self.goal


class BenchReport(BaseModel):
    """The figures of one benchmark and what they were measured with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[2] = 2
    benchmark: str
    subject: str  # the backbone or model that was measured
    figures: tuple[Figure, ...]
    code_digest: str
    commit: str | None
    dirty: bool | None
    packages: dict[str, str]
    host: str
    cpu_model: str
    command: str
    written_at: str


def figure(name: str, unit: str, values: Sequence[float], goal: float, at_least: bool) -> Figure:
    """The figure of a list of rounds."""
    return Figure(name=name, unit=unit, rounds=tuple(values), goal=goal, at_least=at_least)


def publish(path: Path, benchmark: str, subject: str, figures: Sequence[Figure]) -> None:
    """Print the figures, a line each, and write them with their provenance.

    Args:
        path: JSON file.
        benchmark: its name, that of its module.
        subject: the backbone or model that was measured.
        figures: what was measured.
    """
    table = Table("figure", "median", "range", "n", "goal", "", padding=(0, 1))
    for one in figures:
        sign = "at least" if one.at_least else "at most"
        table.add_row(
            one.name,
            f"{one.median:.3g} {one.unit}",
            f"{min(one.rounds):.3g} to {max(one.rounds):.3g}",
            str(len(one.rounds)),
            f"{sign} {one.goal:.3g}",
            "met" if one.is_met else "MISSED",
        )
    Console(width=LINE_CHARS).print(table)
    commit, dirty = git_state()
    report = BenchReport(
        benchmark=benchmark,
        subject=subject,
        figures=tuple(figures),
        code_digest=code_digest(f"blockwise.bench.{benchmark}"),
        commit=commit,
        dirty=dirty,
        packages=package_versions(),
        host=host_name(),
        cpu_model=cpu_model(),
        command=command_line(),
        written_at=utc_now(),
    )
    write_model(path, report)
    print(path)
