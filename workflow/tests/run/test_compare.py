"""Comparing two runs: what changed, and nothing else."""

import io
import json

import pandas as pd
import pytest

from blockwise.artifacts import write_model
from blockwise.claims.ledger import build_points
from blockwise.claims.verdicts import judge
from blockwise.config.claims import Claim
from blockwise.errors import ArtifactError
from blockwise.run.compare import compare
from blockwise.run.manifest import Manifest
from blockwise.tables.columns import csv_bytes

CLAIM = Claim.model_validate(
    {
        "paper": "2605.23296",
        "locator": "abstract",
        "statement": "It gains.",
        "reported": {"text": "2", "grade": "primary"},
        "metric": {
            "kind": "estimate",
            "table": "t",
            "name": "gain",
            "is_ratio": True,
            "replication": "server start",
        },
        "unit": "1",
        "min_num_parameters": 0,
        "scale_reason": "any model can tell",
        "rule": {"kind": "above", "than": 1},
        "figure": "compaction_layouts",
    }
)


@pytest.fixture
def make_run(tmp_path):
    def make(name, gain, commit="a", tau=1, **row):
        folder = tmp_path / name
        (folder / "tables").mkdir(parents=True)
        estimate = {"gain_mean": gain, "gain_low": gain / 1.2, "gain_high": gain * 1.2}
        rows = pd.DataFrame([{"backbone": "b", "gain_num_clusters": 8, **estimate, **row}])
        points = build_points(judge({"gains": CLAIM}, {"t": rows}))
        (folder / "tables" / "claim_points.csv").write_bytes(csv_bytes(points))
        (folder / "config.json").write_text(json.dumps({"experiment": {"tau": tau}, "same": 1}))
        manifest = Manifest(
            commit=commit,
            dirty=False,
            packages={"torch": "2"},
            command="c",
            written_at="now",
            files={},
        )
        write_model(folder / "MANIFEST.json", manifest)
        return folder

    return make


def said(first, second):
    stream = io.StringIO()
    compare(first, second, stream)
    return stream.getvalue()


def test_what_changed_is_named_with_both_values(make_run):
    text = said(make_run("one", 2.0), make_run("two", 3.0, commit="b", tau=5))
    assert "commit" in text
    assert "torch" not in text
    tau = next(line for line in text.splitlines() if "experiment.tau" in line)
    assert tau.split() == ["experiment.tau", "1", "5"]
    assert "same" not in text.replace("the same", "")
    gains = next(line for line in text.splitlines() if line.startswith("gains"))
    assert "2 (1.67 to 2.4)" in gains
    assert "3 (2.5 to 3.6)" in gains
    assert "1.5 (1.19 to 1.9)" in gains  # their ratio, with Welch's interval on the log scale


def test_a_verdict_that_turned_and_a_point_that_is_gone_are_shown(make_run):
    turned = said(make_run("one", 2.0), make_run("two", 0.5))
    assert "supported -> contradicted" in turned
    gone = said(make_run("three", 2.0), make_run("four", 2.0, backbone="other"))
    assert "supported -> absent" in gone
    assert "absent -> supported" in gone


def test_two_equal_runs_differ_in_nothing(make_run):
    text = said(make_run("one", 2.0), make_run("two", 2.0))
    assert "environment and code: the same" in text
    assert "configuration: the same" in text
    assert "1 (" in text


def test_a_folder_without_a_ledger_is_refused(make_run, tmp_path):
    run = make_run("one", 2.0)
    (run / "tables" / "claim_points.csv").unlink()
    with pytest.raises(ArtifactError, match="holds no claims ledger"):
        said(run, run)
