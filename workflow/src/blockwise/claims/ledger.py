"""The ledger of a run: `claims.csv`, a row a claim, and `claim_points.csv`, a row a point.

`python -m blockwise.claims.ledger --claims FILE --tables DIR --families compaction mxfp4`

It reads the run's tables and nothing else, so that every verdict can be followed to the rows
behind it: a claim to its points, a point to the row of the table it names.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from blockwise.artifacts import write_bytes
from blockwise.claims.verdicts import JudgedClaim, JudgedPoint, Verdict, judge
from blockwise.config.claim_metrics import Where
from blockwise.config.claims import Claim, load_claims
from blockwise.errors import run_command
from blockwise.tables.columns import Column, ColumnKind, count, csv_bytes, flag, frame, number, text
from blockwise.tables.registry import Family, tables_of

VERDICTS = ", ".join(Verdict)

_ESTIMATE: tuple[Column, ...] = (
    text(
        "point",
        "Values that tell the point apart in its table; of a claim, its least favourable point: "
        "contradicting before inconclusive before supporting, then the estimate that is worst for "
        "the claim.",
    ),
    text("model", "Its model, with the number of parameters."),
    text("window", "Lengths of its texts in tokens."),
    text("data", "Its dataset; of a training the caption, which names the text."),
    number("value", "Its estimate, in the unit of the claim.", ColumnKind.TIMED, "1"),
    number("low", "Lower end of its 95% interval.", ColumnKind.TIMED, "1"),
    number("high", "Upper end of its 95% interval.", ColumnKind.TIMED, "1"),
    count("num_clusters", "Clusters behind it."),
    number(
        "null_low",
        "Lower end of the null arm's interval in the same measure (of a recovered fraction: in the "
        "measure of what is recovered); empty: the metric has none.",
        ColumnKind.SAMPLED,
        "1",
    ),
    number("null_high", "Its upper end.", ColumnKind.SAMPLED, "1"),
    number(
        "floor",
        "The same difference with the last tokens of the text in place of the arm; empty: the "
        "metric has none.",
        ColumnKind.SAMPLED,
        "1",
    ),
    text("gate", "Gate of the rows behind it.", ColumnKind.HOST),
    count(
        "needed_clusters",
        "Clusters that would tell the reported effect from the threshold, by this spread.",
        ColumnKind.TIMED,
    ),
)
"""What both tables say of a point."""

CLAIM_COLUMNS: tuple[Column, ...] = (
    text("claim", "Its id in config/claims.yaml."),
    text("section", "claims of the papers, or our claims, which stand apart."),
    text("paper", "arXiv number of the paper, or ours."),
    text("locator", "Where it is said, e.g. Table 9."),
    text("statement", "The claim, in our words."),
    text("reported", "What is reported."),
    text(
        "grade",
        "primary: the paper's own abstract; secondary: a reading of it by others; implied: nobody "
        "says it, but what is said is of little use without it; ours: a claim of this repository.",
    ),
    text("verdict", f"What the rule says: {VERDICTS}.", ColumnKind.TIMED),
    text("reason", "Why.", ColumnKind.TIMED),
    text("rule", "What would support it."),
    text("metric", "Table and columns that it is measured by."),
    text("unit", "Unit of value, low, high and the null arm's interval."),
    text("replication", "What a cluster is: what num_clusters counts."),
    *_ESTIMATE,
    count("num_points", "Points that the metric found."),
    count("num_deciding_points", "Those that the verdict rests on.", ColumnKind.TIMED),
    number(
        "min_num_parameters",
        "Smaller models cannot decide the claim.",
        ColumnKind.EXACT,
        "parameters",
    ),
    count("min_window_tokens", "Nor can shorter windows.", unit="tokens"),
    text("scale_reason", "Why not."),
    text("figure", "The figure to look at."),
)

POINT_COLUMNS: tuple[Column, ...] = (
    text("claim", "Id of the claim."),
    text("table", "Table that the point is a row, or a group of rows, of."),
    text("verdict", f"What the rule says of it: {VERDICTS}.", ColumnKind.TIMED),
    text("reason", "Why.", ColumnKind.TIMED),
    flag("decides", "Whether the verdict of the claim rests on it.", ColumnKind.TIMED),
    text("unit", "Unit of value, low, high and the null arm's interval."),
    text("replication", "What a cluster is: what num_clusters counts."),
    *_ESTIMATE,
    number("num_parameters", "Parameters of the model.", ColumnKind.EXACT, "parameters"),
    flag("is_ratio", "Whether the interval is symmetric on the log scale."),
)

TABLES: Mapping[str, Sequence[Column]] = {"claims": CLAIM_COLUMNS, "claim_points": POINT_COLUMNS}
"""Columns of the ledger's tables, by name."""


def build_claims(judged: Sequence[JudgedClaim]) -> pd.DataFrame:
    """One row a claim."""
    return frame([_claim_row(one) for one in judged], CLAIM_COLUMNS)


def build_points(judged: Sequence[JudgedClaim]) -> pd.DataFrame:
    """One row a point, the least favourable one of each claim first."""
    rows = [
        {
            "claim": one.name,
            "table": one.claim.metric.table,
            "verdict": judged_point.verdict.value,
            "reason": judged_point.reason,
            "decides": judged_point.decides,
            "unit": one.claim.unit,
            "replication": one.claim.metric.replication.value,
            "num_parameters": judged_point.point.scale.num_parameters,
            "is_ratio": one.claim.metric.is_on_log_scale,
            **_estimate(judged_point),
        }
        for one in judged
        for judged_point in one.points
    ]
    return frame(rows, POINT_COLUMNS)


def _claim_row(one: JudgedClaim) -> dict[str, Any]:
    claim = one.claim
    return {
        "claim": one.name,
        "section": claim.paper.section,
        "paper": claim.paper.value,
        "locator": claim.locator,
        "statement": claim.statement,
        "reported": claim.reported.text,
        "grade": claim.reported.grade.value,
        "verdict": one.verdict.value,
        "reason": one.reason,
        "rule": claim.rule.inside,
        "metric": _metric_words(claim),
        "unit": claim.unit,
        "replication": claim.metric.replication.value,
        "num_points": len(one.points),
        "num_deciding_points": one.num_deciding,
        "min_num_parameters": claim.min_num_parameters,
        "min_window_tokens": claim.min_window_tokens,
        "scale_reason": claim.scale_reason,
        "figure": claim.figure,
        **_estimate(one.points[0] if one.points else None),
    }


def _estimate(one: JudgedPoint | None) -> dict[str, Any]:
    if one is None:
        return {column.name: None for column in _ESTIMATE}
    point = one.point
    null_low, null_high = point.null or (None, None)
    return {
        "point": point.where,
        "model": point.scale.model,
        "window": point.scale.window or None,
        "data": point.scale.data or None,
        "value": point.value,
        "low": point.low,
        "high": point.high,
        "num_clusters": point.num_clusters,
        "null_low": null_low,
        "null_high": null_high,
        "floor": point.floor,
        "gate": point.gate.value,
        "needed_clusters": one.needed_clusters,
    }


def _metric_words(claim: Claim) -> str:
    metric = claim.metric
    match metric.kind:
        case "estimate":
            return f"{metric.table}: {metric.name}"
        case "slope":
            unit = "" if metric.x_unit == 1 else f"{metric.x_unit:g} "
            return f"{metric.table}: slope of {metric.y} per {unit}{metric.x}"
        case "difference":
            sides = (_side_words(side) for side in (metric.own, metric.reference))
            return f"{metric.table}: {metric.value}, {' less '.join(sides)}"


def _side_words(where: Where) -> str:
    return " and ".join(f"{column} {value}" for column, value in where.items())


def read_tables(folder: Path, families: Sequence[Family]) -> dict[str, pd.DataFrame]:
    """The tables of some families, by name."""
    return {name: pd.read_csv(folder / f"{name}.csv") for name in tables_of(*families)}


def write_ledger(claims_file: Path, folder: Path, families: Sequence[Family]) -> None:
    """Judge the claims by the tables of a folder and write the ledger beside them."""
    judged = judge(load_claims(claims_file), read_tables(folder, families))
    for name, table in (("claims", build_claims(judged)), ("claim_points", build_points(judged))):
        write_bytes(folder / f"{name}.csv", csv_bytes(table))


def main() -> None:
    """Command line: the claims, the folder of the tables, and which families it has."""
    parser = argparse.ArgumentParser(
        prog="python -m blockwise.claims.ledger", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--claims", type=Path, required=True)
    parser.add_argument("--tables", type=Path, required=True, metavar="DIR")
    parser.add_argument("--families", type=Family, nargs="+", choices=list(Family), required=True)
    arguments = parser.parse_args()
    write_ledger(arguments.claims, arguments.tables, arguments.families)


if __name__ == "__main__":
    run_command(main)
