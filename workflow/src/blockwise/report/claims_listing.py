"""The claims of a finished run in a terminal: `blockwise claims results/small`.

They are those of the report's first page, in its order and its words.
"""

import sys
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import click
import pandas as pd
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from blockwise.claims.ledger import TABLES
from blockwise.claims.verdicts import Verdict
from blockwise.command_line import EXISTING_FOLDER, run
from blockwise.errors import ArtifactError
from blockwise.report.pages import (
    SIGNS,
    WITHDRAWN,
    by_verdict,
    estimate_words,
    scale_words,
    verdict_counts,
)

INDENTATION = 2


def print_claims(results: Path, console: Console, *, with_points: bool) -> None:
    """Print every claim of a run: its verdict, what the paper reports, what the run measured.

    Args:
        results: a result folder, or a snapshot of one.
        console: where to.
        with_points: print the rows of tables behind each claim too.

    Raises:
        ArtifactError: the folder holds no claims.
    """
    claims, points = (_read(results, name) for name in TABLES)
    console.print(Text(WITHDRAWN, style="bold"))
    for section, listed in claims.groupby("section", sort=False):
        console.print(f"\n{section}: {verdict_counts(listed)}")
        for claim in by_verdict(listed).to_dict("records"):
            own = points[points["claim"] == claim["claim"]]
            _print_claim(claim, own if with_points else own[:0], console)


def _read(results: Path, name: str) -> pd.DataFrame:
    for path in (results / "tables" / f"{name}.csv", results / f"{name}.csv"):
        if path.is_file():
            try:
                table = pd.read_csv(path)
            except (ValueError, OSError) as error:
                raise ArtifactError(
                    f"cannot read {path}: {error}; `blockwise verify {results}` says what is "
                    "damaged, and `make reproduce` makes it again"
                ) from error
            missing = {column.name for column in TABLES[name]} - {*table.columns}
            if missing:
                raise ArtifactError(
                    f"{path} has no column {', '.join(sorted(missing))}: another version of "
                    "blockwise wrote it; `make reproduce` judges the claims again"
                )
            return table
    raise ArtifactError(
        f"{results} holds no {name}.csv; name the results of a finished run, as results/default"
    )


def _print_claim(claim: Mapping[Hashable, Any], points: pd.DataFrame, console: Console) -> None:
    sign, colour = SIGNS[Verdict(claim["verdict"])]
    verdict = Text(f"{sign} {claim['verdict']}", style=f"bold {colour}")
    console.print()
    console.print(verdict.append(f"  {claim['claim']}", style="not bold default"))
    reported = f"reported: {claim['reported']} ({claim['paper']}, {claim['locator']})"
    lines = [claim["statement"], reported, f"ours: {estimate_words(claim)} ({claim['metric']})"]
    lines += [f"of: {scale_words(claim)}"] if scale_words(claim) else []
    lines += [] if pd.isna(claim["reason"]) else [f"why: {claim['reason']}"]
    lines += [
        f"- {one['verdict']}: {estimate_words(one)}; {one['table']}: {one['point']} "
        f"({scale_words(one)})"
        for one in points.to_dict("records")
    ]
    for line in lines:
        console.print(Padding(Text(str(line)), (0, 0, 0, INDENTATION), expand=False))


@click.command("claims")
@click.argument("results", type=EXISTING_FOLDER)
@click.option("--points", is_flag=True, help="Print the rows of tables behind each claim too.")
def command(results: Path, *, points: bool) -> None:
    """Print what the finished run in RESULTS says of each claim of the papers."""
    print_claims(results, Console(file=sys.stdout), with_points=points)


if __name__ == "__main__":
    run(command)
