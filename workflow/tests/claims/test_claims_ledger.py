"""The claims ledger: its tables are written beside a run's, and agree."""

from pathlib import Path

import pandas as pd
import pytest

from blockwise.claims.ledger import build_claims, build_points, write_ledger
from blockwise.claims.verdicts import Verdict, judge
from blockwise.config.claims import load_claims
from blockwise.errors import ConfigError
from blockwise.tables.registry import Family, load_tables
from claims.made_up import CONTRADICTING, SUPPORTING, claim, table


def test_the_ledger_is_written_beside_the_tables(tmp_path, project_folder):
    for name, module in load_tables(*Family).items():
        columns = [column.name for column in module.COLUMNS]
        pd.DataFrame(columns=columns).to_csv(tmp_path / f"{name}.csv", index=False)
    claims = project_folder / "config" / "claims.yaml"
    write_ledger(claims, tmp_path, list(Family))
    written = pd.read_csv(tmp_path / "claims.csv")
    assert set(written["claim"]) == set(load_claims(claims))
    assert set(written["verdict"]) == {Verdict.NOT_MEASURED.value}
    assert pd.read_csv(tmp_path / "claim_points.csv").empty


def test_claims_that_are_none_are_refused_with_their_place(tmp_path):
    file = tmp_path / "claims.yaml"
    file.write_text("one: {paper: '2605.23296', locator: x}\n")
    with pytest.raises(ConfigError, match=r"one.statement: Field required"):
        load_claims(Path(file))


def test_rows_of_both_tables_agree():
    judged = judge({"c": claim()}, {"t": table(SUPPORTING, CONTRADICTING)})
    claims, points = build_claims(judged), build_points(judged)
    assert len(points) == claims["num_points"].iloc[0] == 2
    assert points["value"].iloc[0] == claims["value"].iloc[0] == 0.5
    assert points["verdict"].iloc[0] == claims["verdict"].iloc[0] == Verdict.CONTRADICTED.value


def test_a_verdict_prints_all_that_it_holds_for():
    """Metric, unit, model, window, data, n and what it counts, and the number of points."""
    rows = table(SUPPORTING, (3, 2.5, 3.5, 8), dataset="locomo", tau_tokens=4096)
    judged = judge({"c": claim(unit="s")}, {"t": rows})
    (row,) = build_claims(judged).to_dict("records")
    assert (row["metric"], row["unit"], row["replication"]) == ("t: gain", "s", "server start")
    assert row["model"] == "b0, 1e+06 parameters"
    assert (row["window"], row["data"]) == ("sessions up to 4096 tokens", "locomo")
    assert (row["value"], row["num_clusters"], row["gate"]) == (2, 8, "ok")
    assert (row["num_points"], row["num_deciding_points"]) == (2, 2)
    assert (row["min_num_parameters"], row["scale_reason"]) == (0, "any model can tell")


def test_our_claims_stand_in_a_section_of_their_own():
    claims = {"theirs": claim(), "ours": claim(paper="ours")}
    written = build_claims(judge(claims, {"t": table(SUPPORTING)}))
    assert list(written["section"]) == ["claims of the papers", "our claims"]
    assert list(written["verdict"]) == ["supported"] * 2
