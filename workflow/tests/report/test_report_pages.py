"""Pages and captions of the report: one file each, everything said, nothing from elsewhere."""

import json
import re

import pandas as pd
import pytest

from blockwise.claims.ledger import write_ledger
from blockwise.claims.verdicts import Verdict
from blockwise.config.claims import load_claims
from blockwise.figures.registry import FIGURES
from blockwise.report import pages as report_pages
from blockwise.report.captions import caption_of, category_of, title_of
from blockwise.report.data_dictionary import write_dictionary
from blockwise.report.pages import CLAIMS_PAGE, TABLES_PAGE, WITHDRAWN, unpacked, write_pages
from blockwise.tables.registry import Family, load_tables
from blockwise.tables.write import PROVENANCE
from report.browser import CHROMIUM, WHY_NOT, chromium
from report.click_through import read_claims

FAMILIES = [Family.MXFP4]
MADE_BY = {
    "commit": "abc",
    "dirty": False,
    "host": "h",
    "written_at": "now",
    "command": "python",
    "packages": {"torch": "2"},
}


@pytest.fixture
def pages(tmp_path, project_folder):
    tables = tmp_path / "tables"
    tables.mkdir()
    for name, module in load_tables(*FAMILIES).items():
        columns = [column.name for column in module.COLUMNS]
        pd.DataFrame(columns=columns).to_csv(tables / f"{name}.csv", index=False)
    arms = {"W": (0.006, 0.003, 0.009), "F+D+W+RHT16(W)": (0.9, 0.8, 1.0)}
    told = {"experiment": "mxfp4_ladder", "baseline": "fp8", "measure": "final_quantized_loss"}
    row = dict.fromkeys(pd.read_csv(tables / "mxfp4_verdicts.csv").columns)
    rows = []
    for arm, (mean, low, high) in arms.items():
        quantity = "over baseline" if arm == "W" else "recovered"
        values = {"effect_mean": mean, "effect_low": low, "effect_high": high}
        values |= {"null_low": -0.001, "null_high": 0.001, "caption": "on docstrings"}
        seeds = {"effect_num_seeds": 6, "num_parameters": 1.1e6}
        rows.append({**row, **told, "quantity": quantity, "arm": arm, **values, **seeds})
    pd.DataFrame(rows).to_csv(tables / "mxfp4_verdicts.csv", index=False)
    ladder = dict.fromkeys(pd.read_csv(tables / "mxfp4_ladder.csv").columns)
    ladder |= {"experiment": "<b>", "baseline": "fp8", "arm": "F", "num_parameters": 1.1e6}
    pd.DataFrame([ladder]).to_csv(tables / "mxfp4_ladder.csv", index=False)
    (tables / PROVENANCE[Family.MXFP4]).write_text(json.dumps(MADE_BY))
    write_dictionary(FAMILIES, tables / "data_dictionary.csv")
    write_ledger(project_folder / "config" / "claims.yaml", tables, FAMILIES)
    write_pages(tables, FAMILIES, tmp_path / "report")
    return tmp_path / "report"


def test_the_claims_page_says_verdict_reason_and_points(pages, project_folder):
    page = unpacked((pages / CLAIMS_PAGE).read_text())
    claims = load_claims(project_folder / "config" / "claims.yaml")
    assert WITHDRAWN in page
    assert f"1 {Verdict.SUPPORTED}, 1 {Verdict.CONTRADICTED}, 0 {Verdict.INCONCLUSIVE}, 0 " in page
    for section in ("Claims of the papers", "Our claims"):
        assert f"<h2>{section}</h2>" in page
    for claim in claims.values():
        assert claim.statement in page
    assert "<summary>1</summary>" in page
    assert "0.006 nats a token (0.003 to 0.009), n = 6 (seed of a training)" in page
    assert "1.1e+06 parameters; on docstrings" in page
    assert "the null arm: -0.001 to 0.001" in page
    assert "mxfp4_verdicts: experiment=mxfp4_ladder, arm=W" in page
    assert "mxfp4_ladder: experiment=&lt;b&gt;, arm=F" in page  # text of tables is no markup


def test_every_verdict_has_a_sign_of_its_own():
    signs = [sign for sign, _ in report_pages.SIGNS.values()]
    assert report_pages.SIGNS.keys() == set(Verdict)
    assert len(set(signs)) == len(signs)


def test_the_tables_page_holds_every_table_and_what_made_it(pages):
    page = unpacked((pages / TABLES_PAGE).read_text())
    for name in (*load_tables(*FAMILIES), "data_dictionary", "provenance"):
        assert f'<h2 id="{name}">' in page
    assert "package torch" in page
    assert "This run has no such rows." in page


def test_a_page_that_would_be_too_large_leaves_its_longest_tables_out(pages, monkeypatch):
    full = len((pages / TABLES_PAGE).read_text())
    monkeypatch.setattr(report_pages, "MAX_PAGE_BYTES", full - 500)
    write_pages(pages.parent / "tables", FAMILIES, pages)
    page = unpacked((pages / TABLES_PAGE).read_text())
    assert len(re.findall(r"rows, too many for this page: see tables/\w+\.csv", page)) == 1


def test_pages_need_nothing_from_elsewhere(pages):
    for name in (CLAIMS_PAGE, TABLES_PAGE):
        page = unpacked((pages / name).read_text())
        assert len((pages / name).read_bytes()) < report_pages.MAX_PAGE_BYTES
        assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"https?:", page)


@pytest.mark.skipif(CHROMIUM is None, reason=WHY_NOT)
def test_a_browser_draws_the_claims_and_they_can_be_searched(pages, tmp_path):
    with chromium(tmp_path / "profile") as browser:
        for width in (1280, 400):
            browser.resize(width)
            browser.open(pages / CLAIMS_PAGE)
            browser.wait_for("!!document.querySelector('input[type=search]')")
            read_claims(browser, "Wgrad", framed=False)
            assert browser.value("document.documentElement.scrollWidth - innerWidth") <= 0
        assert browser.complaints == []


@pytest.mark.parametrize("figure", sorted(FIGURES))
def test_every_figure_has_a_title_and_a_caption(figure, project_folder):
    claims = load_claims(project_folder / "config" / "claims.yaml")
    title, caption = title_of(figure), caption_of(figure, claims)
    assert title[0].isupper()
    assert ("MXFP4" in category_of(figure)) == figure.startswith("mxfp4_")
    assert len(caption) > 80
    for claim in claims.values():
        assert (claim.statement in caption) == (claim.figure == figure)
