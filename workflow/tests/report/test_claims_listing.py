"""The claims in a terminal: each verdict with its scale, ours apart, and old ledgers refused."""

import io

import pandas as pd
import pytest
from rich.console import Console

from blockwise.claims.ledger import build_claims, build_points
from blockwise.claims.verdicts import judge
from blockwise.errors import ArtifactError
from blockwise.report.claims_listing import print_claims
from blockwise.tables.columns import csv_bytes
from claims.made_up import SUPPORTING, claim, table

WIDTH = 200


@pytest.fixture
def results(tmp_path):
    rows = table(SUPPORTING, (3, 2.5, 3.5, 8), dataset="locomo", tau_tokens=4096)
    judged = judge({"theirs": claim(unit="s"), "mine": claim(paper="ours")}, {"t": rows})
    (tmp_path / "claims.csv").write_bytes(csv_bytes(build_claims(judged)))
    (tmp_path / "claim_points.csv").write_bytes(csv_bytes(build_points(judged)))
    return tmp_path


def said(results, *, with_points=False):
    stream = io.StringIO()
    print_claims(results, Console(file=stream, width=WIDTH), with_points=with_points)
    return stream.getvalue()


def test_a_verdict_is_printed_with_all_that_it_holds_for(results):
    text = said(results)
    assert "ours: 2 s (1.5 to 2.5), n = 8 (server start) (t: gain)" in text
    assert "of: b0, 1e+06 parameters; sessions up to 4096 tokens; locomo" in text
    assert "2 of 2 points: the whole 95% interval is above 1" in text


def test_the_last_tokens_stand_beside_the_number(results):
    with_floor = pd.read_csv(results / "claims.csv").assign(floor=-0.5)
    with_floor.to_csv(results / "claims.csv", index=False)
    assert "n = 8 (server start); the last tokens: -0.5" in said(results)


def test_our_claims_stand_apart(results):
    lines = said(results).splitlines()
    places = [
        next(place for place, line in enumerate(lines) if words in line)
        for words in ("claims of the papers: 1 supported", "theirs", "our claims: 1", "mine")
    ]
    assert places == sorted(places)


def test_points_are_printed_with_their_scale(results):
    assert "- supported: 3 s (2.5 to 3.5), n = 8 (server start); t: backbone=b1" in said(
        results, with_points=True
    )


def test_a_ledger_of_another_version_is_refused(results):
    old = pd.read_csv(results / "claims.csv").drop(columns="unit")
    old.to_csv(results / "claims.csv", index=False)
    with pytest.raises(ArtifactError, match="has no column unit: another version"):
        said(results)
