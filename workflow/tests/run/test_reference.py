"""The reference snapshot is replaced whole or not at all."""

import sys
from pathlib import Path

import pandas as pd
import pytest

from blockwise.claims.verdicts import Verdict
from blockwise.errors import ArtifactError
from blockwise.report.front_page import BEGIN, END
from blockwise.report.pages import WITHDRAWN
from blockwise.run import reference
from blockwise.run.manifest import write_manifest
from blockwise.run.reference import refresh

CLAIM = {
    "claim": "c",
    "paper": "2605.1",
    "locator": "abstract",
    "statement": "It holds.",
    "reported": "-",
    "grade": "primary",
    "verdict": Verdict.SUPPORTED,
    "reason": "so",
    "value": 1.25,
    "low": 1.0,
    "high": 1.5,
    "num_clusters": 6,
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished run beside an older snapshot, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for folder in ("results/default/tables", "results/reference", "figures/default"):
        (tmp_path / folder).mkdir(parents=True)
    pd.DataFrame([CLAIM]).to_csv(tmp_path / "results/default/tables/claims.csv", index=False)
    (tmp_path / "figures/default/one.png").write_bytes(b"png")
    (tmp_path / "results/reference/old.csv").write_text("old")
    results = Path("results/default")
    write_manifest(results / "MANIFEST.json", [results / "tables" / "claims.csv"])
    return tmp_path


def refreshed(run, readme):
    (run / "README.md").write_text(readme)
    return refresh(run / "results/default", run / "figures/default", run / "README.md")


def test_a_finished_run_replaces_the_snapshot_and_what_is_said_of_the_claims(run):
    refreshed(run, f"before\n{BEGIN}\nold\n{END}\nafter\n")
    reference = run / "results" / "reference"
    assert {path.name for path in reference.iterdir()} == {"claims.csv", "MANIFEST.json"}
    assert (run / "figures/reference/one.png").exists()
    readme = (run / "README.md").read_text()
    assert f"**{WITHDRAWN}**" in readme
    assert "old" not in readme
    assert readme.startswith("before\n")
    assert readme.endswith("after\n")


def test_nothing_is_replaced_where_the_readme_has_no_place(run):
    with pytest.raises(ArtifactError, match=r"README.md has no place for the claims"):
        refreshed(run, "nothing here")
    assert (run / "results/reference/old.csv").exists()


def test_a_damaged_run_is_refused(run):
    with (run / "results/default/tables/claims.csv").open("a") as table:
        table.write("one more line\n")
    with pytest.raises(ArtifactError, match="not taken as a reference, rerun first"):
        refreshed(run, f"{BEGIN}\n{END}\n")
    assert (run / "results/reference/old.csv").exists()


def test_another_folder_gets_tables_and_figures_and_the_readme_stays(run, monkeypatch):
    results, figures = run / "results/default", run / "figures/default"
    into = run / "docs/gpu"
    monkeypatch.setattr(sys, "argv", ["reference", str(results), str(figures), "--into", str(into)])
    reference.main()
    assert (into / "tables/claims.csv").exists()
    assert (into / "figures/one.png").exists()
    assert (run / "results/reference/old.csv").exists()
