"""Pages and captions of the report: one file each, everything said, nothing from elsewhere."""

import json
import re
import shutil
import subprocess

import pandas as pd
import pytest

from blockwise.claims.ledger import write_ledger
from blockwise.claims.verdicts import Verdict
from blockwise.config.claims import load_claims
from blockwise.figures.registry import FIGURES
from blockwise.report.captions import caption_of, category_of, title_of
from blockwise.report.pages import CLAIMS_PAGE, TABLES_PAGE, write_pages
from blockwise.tables.data_dictionary import write_dictionary
from blockwise.tables.registry import Family, load_tables
from blockwise.tables.write import PROVENANCE

FAMILIES = [Family.MXFP4]
MADE_BY = {
    "commit": "abc",
    "dirty": False,
    "host": "h",
    "written_at": "now",
    "command": "python",
    "packages": {"torch": "2"},
}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def pages(tmp_path, project_folder):
    tables = tmp_path / "tables"
    tables.mkdir()
    for name, module in load_tables(*FAMILIES).items():
        columns = [column.name for column in module.COLUMNS]
        pd.DataFrame(columns=columns).to_csv(tables / f"{name}.csv", index=False)
    arms = {"W": (0.006, 0.003, 0.009), "W+RHT16(W)": (-0.005, -0.008, -0.002)}
    row = dict.fromkeys(pd.read_csv(tables / "mxfp4_interventions.csv").columns)
    rows = []
    for arm, (mean, low, high) in arms.items():
        difference = "baseline" if arm == "W" else "reference"
        names = [f"train_loss_over_{difference}_{one}" for one in ("mean", "low", "high")]
        values = dict(zip((f"{name}_nats" for name in names), (mean, low, high), strict=True))
        seeds = {f"train_loss_over_{difference}_num_seeds": 6, "num_parameters": 82112}
        rows.append({**row, "arm": arm, "experiment": "<b>", **values, **seeds})
    pd.DataFrame(rows).to_csv(tables / "mxfp4_interventions.csv", index=False)
    (tables / PROVENANCE[Family.MXFP4]).write_text(json.dumps(MADE_BY))
    write_dictionary(FAMILIES, tables / "data_dictionary.csv")
    write_ledger(project_folder / "config" / "claims.yaml", tables, FAMILIES)
    write_pages(tables, FAMILIES, tmp_path / "report")
    return tmp_path / "report"


def test_the_claims_page_says_verdict_reason_and_points(pages, project_folder):
    page = (pages / CLAIMS_PAGE).read_text()
    claims = load_claims(project_folder / "config" / "claims.yaml")
    assert f"1 {Verdict.SUPPORTED}, 1 {Verdict.CONTRADICTED}, 0 " in page
    for claim in claims.values():
        assert claim.statement in page
    assert "<summary>1</summary>" in page
    assert "0.006 (0.003 to 0.009), n = 6" in page
    assert "mxfp4_interventions: experiment=&lt;b&gt;, arm=W" in page  # text of tables is no markup


def test_the_tables_page_holds_every_table_and_what_made_it(pages):
    page = (pages / TABLES_PAGE).read_text()
    for name in (*load_tables(*FAMILIES), "data_dictionary", "provenance"):
        assert f'<h2 id="{name}">' in page
    assert "package torch" in page
    assert "This run has no such rows." in page


def test_pages_need_nothing_from_elsewhere(pages):
    for name in (CLAIMS_PAGE, TABLES_PAGE):
        page = (pages / name).read_text()
        assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"https?:", page)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's chromium)")
@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_draws_the_claims_and_they_can_be_searched(pages, tmp_path, width):
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width},1000",
            "--virtual-time-budget=10000",
            "--enable-logging=stderr",
            "--dump-dom",
            (pages / CLAIMS_PAGE).as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert 'type="search"' in done.stdout  # DataTables has drawn the table
    assert "contradicted" in done.stdout
    assert "CONSOLE" not in done.stderr


@pytest.mark.parametrize("figure", sorted(FIGURES))
def test_every_figure_has_a_title_and_a_caption(figure, project_folder):
    claims = load_claims(project_folder / "config" / "claims.yaml")
    title, caption = title_of(figure), caption_of(figure, claims)
    assert title[0].isupper()
    assert ("MXFP4" in category_of(figure)) == figure.startswith("mxfp4_")
    assert len(caption) > 80
    for claim in claims.values():
        assert (claim.statement in caption) == (claim.figure == figure)
