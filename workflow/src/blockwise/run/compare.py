"""What changed between two runs: `blockwise compare results/A results/B`.

Environment, code and configuration are compared as the runs recorded them; every point of the
claims ledger with the interval of its difference. The runs are independent of each other, so the
interval is Welch's, on the log scale for ratios.
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import click
import pandas as pd
from rich.console import Console
from rich.table import Table

from blockwise.artifacts import read_model
from blockwise.command_line import EXISTING_FOLDER, run
from blockwise.errors import ArtifactError
from blockwise.run.manifest import Manifest
from blockwise.statistics import Interval, independent_difference

MANIFEST, CONFIG = "MANIFEST.json", "config.json"
POINT_KEY = ["claim", "table", "point"]
SIDES, ABSENT = ("_1", "_2"), "absent"
LINE_CHARS = 200


def compare(first: Path, second: Path, stream: TextIO) -> None:
    """Print what differs between two result folders, or snapshots of them.

    Raises:
        ArtifactError: a folder holds no finished run.
    """
    console = Console(file=stream, width=LINE_CHARS)
    manifests = [read_model(folder / MANIFEST, Manifest) for folder in (first, second)]
    for title, rows in (
        ("environment and code", _changed(*(_environment(one) for one in manifests))),
        ("configuration", _changed(*(_configuration(folder) for folder in (first, second)))),
    ):
        _print(console, title, ["", str(first), str(second)], rows)
    points = [_points(folder) for folder in (first, second)]
    columns = ["claim", "point", "verdicts", str(first), str(second), "second less first (or over)"]
    _print(console, "claims", columns, _compared(*points))


def _environment(manifest: Manifest) -> dict[str, str]:
    return {
        "commit": manifest.commit or "unknown",
        "dirty": str(manifest.dirty),
        **manifest.packages,
    }


def _configuration(folder: Path) -> dict[str, str]:
    """The resolved configuration as dotted keys; a snapshot has none."""
    path = folder / CONFIG
    if not path.is_file():
        return {}
    return dict(_flattened(json.loads(path.read_text(encoding="utf-8"))))


def _flattened(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flattened(inner, f"{key}.{name}" if key else name)
    else:
        yield key, json.dumps(value)


def _changed(first: Mapping[str, str], second: Mapping[str, str]) -> Iterator[list[str]]:
    for key in sorted({*first, *second}):
        if first.get(key) != second.get(key):
            yield [key, first.get(key, "-"), second.get(key, "-")]


def _points(folder: Path) -> pd.DataFrame:
    for path in (folder / "tables" / "claim_points.csv", folder / "claim_points.csv"):
        if path.is_file():
            return pd.read_csv(
                path, keep_default_na=False, na_values={"value": "", "low": "", "high": ""}
            )
    raise ArtifactError(f"{folder} holds no claims ledger; name the results of a finished run")


def _compared(first: pd.DataFrame, second: pd.DataFrame) -> Iterator[list[str]]:
    both = first.merge(second, on=POINT_KEY, how="outer", suffixes=SIDES, sort=False)
    both = both.fillna({f"verdict{side}": ABSENT for side in SIDES})
    for _, row in both.iterrows():
        estimates = [_interval(row, side) for side in SIDES]
        verdicts = dict.fromkeys(row[f"verdict{side}"] for side in SIDES)
        yield [
            str(row["claim"]),
            str(row["point"]),
            " -> ".join(verdicts),
            *(_words(one) for one in estimates),
            _difference(*estimates, is_ratio=bool(row["is_ratio_1"])),
        ]


def _interval(row: "pd.Series[Any]", side: str) -> Interval | None:
    value, low, high, num = (row[name + side] for name in ("value", "low", "high", "num_clusters"))
    if pd.isna(value):
        return None
    return _estimate(
        float(value),
        None if pd.isna(low) else float(low),
        None if pd.isna(high) else float(high),
        int(num),
    )


def _words(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    if interval.low is None and interval.high is None:
        return f"{interval.mean:.3g} (n = {interval.num_clusters})"
    if interval.high is None:
        return f"{interval.mean:.3g} (above {interval.low:.3g})"
    if interval.low is None:
        return f"{interval.mean:.3g} (below {interval.high:.3g})"
    return f"{interval.mean:.3g} ({interval.low:.3g} to {interval.high:.3g})"


def _difference(first: Interval | None, second: Interval | None, *, is_ratio: bool) -> str:
    if first is None or second is None:
        return "-"
    if is_ratio:
        first, second = (_logarithm(one) for one in (first, second))
    found = independent_difference(second, first)
    if found is None:
        difference = second.mean - first.mean
        return f"{math.exp(difference) if is_ratio else difference:.3g} (no interval)"
    value, low, high = (math.exp(one) if is_ratio else one for one in found)
    return f"{value:.3g} ({low:.3g} to {high:.3g})"


def _logarithm(interval: Interval) -> Interval:
    return _estimate(
        math.log(interval.mean),
        None if interval.low is None else math.log(interval.low),
        None if interval.high is None else math.log(interval.high),
        interval.num_clusters,
    )


def _estimate(value: float, low: float | None, high: float | None, num_clusters: int) -> Interval:
    """An interval whose range the ledger does not keep."""
    return Interval(value, low, high, math.nan, math.nan, num_clusters, num_clusters)


def _print(console: Console, title: str, columns: list[str], rows: Iterator[list[str]]) -> None:
    found = list(rows)
    console.print()
    if not found:
        console.print(f"{title}: the same")
        return
    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False)
    for row in found:
        table.add_row(*row)
    console.print(table)


@click.command("compare")
@click.argument("first", type=EXISTING_FOLDER)
@click.argument("second", type=EXISTING_FOLDER)
def command(first: Path, second: Path) -> None:
    """Print what changed between two runs.

    FIRST and SECOND are result folders, or snapshots of them. Environment, code and configuration
    are compared, and every value of the claims with the interval of the difference.
    """
    compare(first, second, sys.stdout)


if __name__ == "__main__":
    run(command)
