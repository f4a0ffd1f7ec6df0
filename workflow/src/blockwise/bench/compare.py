"""What got slower between two benchmark runs: `make bench-compare OLD=... NEW=...`.

    python -m blockwise.bench.compare results/bench-old results/bench

Figures of the same name are compared by their rounds. One is called slower, or faster, where the
rounds differ beyond the noise by Mann and Whitney's test and the median moved by more than two
runs of the same code differ: a machine changes between runs by more than within one.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from scipy.stats import mannwhitneyu  # type: ignore[import-untyped]  # scipy ships no types

from blockwise.artifacts import read_model
from blockwise.bench.rounds import LINE_CHARS, BenchReport, Figure
from blockwise.errors import ArtifactError, BlockwiseError, run_command

ALPHA = 0.05  # of a test, divided by the number of figures compared
TOLERANCE = 0.2  # of the median; one code twice: ratios moved by up to 17%
TOLERANCES = {"s": 1.0}  # seconds by up to 49%
SAME, SLOWER, FASTER, FEW = "same", "SLOWER", "faster", "too few rounds"


@dataclass(frozen=True)
class Change:
    """One figure of two runs."""

    old: Figure
    new: Figure
    p_value: float
    outcome: str


def load_reports(folder: Path) -> dict[tuple[str, str], Figure]:
    """Figures of the reports in a folder, by benchmark and name.

    Raises:
        ArtifactError: it holds no report, or a damaged one.
    """
    reports = [read_model(path, BenchReport) for path in sorted(folder.glob("*.json"))]
    if not reports:
        raise ArtifactError(f"{folder} holds no benchmark report; `make bench` writes them")
    return {(report.benchmark, one.name): one for report in reports for one in report.figures}


def changes(
    old: dict[tuple[str, str], Figure], new: dict[tuple[str, str], Figure]
) -> Iterator[Change]:
    """Every figure that both have; what only one has cannot be compared."""
    shared = [key for key in new if key in old]
    for key in shared:
        yield _change(old[key], new[key], ALPHA / len(shared))


def _change(old: Figure, new: Figure, alpha: float) -> Change:
    p_value = float(mannwhitneyu(old.rounds, new.rounds, method="auto").pvalue)
    separated = (0.0,) * len(old.rounds), (1.0,) * len(new.rounds)
    smallest = float(mannwhitneyu(*separated, method="exact").pvalue)
    tolerance = TOLERANCES.get(new.unit, TOLERANCE)
    moved = max(new.median, old.median) > (1 + tolerance) * min(new.median, old.median)
    if smallest > alpha:
        return Change(old, new, p_value, FEW)
    if p_value > alpha or not moved:
        return Change(old, new, p_value, SAME)
    is_worse = (new.median < old.median) == new.at_least
    return Change(old, new, p_value, SLOWER if is_worse else FASTER)


def main() -> None:
    """Command line: two folders of reports; status 1 where anything got slower."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    arguments = parser.parse_args()
    old, new = load_reports(arguments.old), load_reports(arguments.new)
    table = Table("figure", "old", "new", "p", "", padding=(0, 1))
    found = list(changes(old, new))
    for one in found:
        table.add_row(
            one.new.name,
            f"{one.old.median:.3g} {one.old.unit} (n={len(one.old.rounds)})",
            f"{one.new.median:.3g} (n={len(one.new.rounds)})",
            f"{one.p_value:.2g}",
            one.outcome,
        )
    Console(width=LINE_CHARS).print(table)
    for benchmark, name in sorted(old.keys() ^ new.keys()):
        print(f"only in one of them: {benchmark}: {name}")
    slower = [one.new.name for one in found if one.outcome == SLOWER]
    if slower:
        raise BlockwiseError(
            f"{len(slower)} of {len(found)} figures got worse: {'; '.join(slower)}"
        )


if __name__ == "__main__":
    run_command(main)
