"""The committed snapshot and the README's claims: of this code, these claims, and one run."""

import re

import pandas as pd
import pytest

from blockwise.claims.ledger import TABLES as LEDGER_TABLES
from blockwise.claims.verdicts import Verdict
from blockwise.config.claims import load_claims
from blockwise.errors import ArtifactError
from blockwise.figures.registry import FIGURES
from blockwise.report.front_page import BEGIN, END, claims_section, with_claims
from blockwise.tables.data_dictionary import build
from blockwise.tables.registry import Family, load_tables

NUM_PICTURES = 4
REMEDY = "refresh it: make reproduce, then make reference"


@pytest.fixture(scope="module")
def snapshot(project_folder):
    folder = project_folder / "results" / "reference"
    if not (folder / "claims.csv").exists():
        pytest.skip(f"the snapshot was made before the ledger; {REMEDY}")
    return folder


def claim(verdict, **values):
    row = {
        "claim": "c",
        "paper": "2605.1",
        "place": "abstract",
        "statement": "It holds.",
        "reported": "a | b",
        "grade": "primary",
        "verdict": verdict,
        "reason": "so",
        "value": 1.25,
        "low": 1.0,
        "high": 1.5,
        "num_clusters": 6,
    }
    return row | values


def test_what_was_tested_comes_first_and_the_rest_is_folded_away():
    claims = pd.DataFrame(
        [
            claim(Verdict.NOT_TESTABLE, value=None, low=None, high=None),
            claim(Verdict.INCONCLUSIVE),
            claim(Verdict.SUPPORTED),
        ]
    )
    text = claims_section(claims)
    places = [text.index(f" {verdict} | It holds.") for verdict in ("supported", "inconclusive")]
    assert places == sorted(places)
    folded = text[text.index("<details>") :]
    assert (
        f"{Verdict.NOT_TESTABLE} | It holds. (2605.1, abstract) | a \\| b (primary) | - |" in folded
    )
    assert "1.25 (1 to 1.5), n = 6" not in folded
    assert text.startswith("**1 supported, 0 contradicted, 1 inconclusive, 1 not testable")


def test_the_section_is_replaced_and_the_rest_of_the_text_stays():
    claims = pd.DataFrame([claim(Verdict.SUPPORTED)])
    once = with_claims(f"above\n{BEGIN}\nold\n{END}\nbelow", claims)
    assert once.startswith(f"above\n{BEGIN}\n**1 supported")
    assert once.endswith(f"{END}\nbelow")
    assert with_claims(once, claims) == once


def test_a_text_without_the_marks_is_refused():
    with pytest.raises(ArtifactError, match="has no place for the claims"):
        with_claims("nothing", pd.DataFrame([claim(Verdict.SUPPORTED)]))


def test_the_snapshot_has_the_tables_of_this_code(snapshot):
    tables = {name: module.COLUMNS for name, module in load_tables(*Family).items()}
    for name, columns in {**tables, **LEDGER_TABLES}.items():
        header = list(pd.read_csv(snapshot / f"{name}.csv", nrows=0).columns)
        assert header == [column.name for column in columns], f"{name}: {REMEDY}"
    dictionary = pd.read_csv(snapshot / "data_dictionary.csv", keep_default_na=False)
    expected = build({**tables, **LEDGER_TABLES}).fillna("")
    assert dictionary.to_dict("records") == expected.to_dict("records"), REMEDY


def test_the_snapshot_judges_the_claims_of_the_configuration(snapshot, project_folder):
    claims = load_claims(project_folder / "config" / "claims.yaml")
    judged = pd.read_csv(snapshot / "claims.csv").set_index("claim")
    assert list(judged.index) == list(claims), REMEDY
    for name, one in claims.items():
        row = judged.loc[name]
        said = (row["statement"], row["reported"], row["rule"])
        assert said == (one.statement, one.reported.text, one.rule.inside), f"{name}: {REMEDY}"


def test_the_readme_shows_the_claims_and_four_pictures_of_the_snapshot(snapshot, project_folder):
    readme = (project_folder / "README.md").read_text()
    assert with_claims(readme, pd.read_csv(snapshot / "claims.csv")) == readme, REMEDY
    pictures = re.findall(r"!\[[^\]]+\]\((figures/reference/(\w+)\.png)\)", readme)
    assert len(pictures) == NUM_PICTURES
    for path, figure in pictures:
        assert figure in FIGURES
        assert (project_folder / path).is_file()


def test_every_figure_is_in_the_snapshot(project_folder, snapshot):
    drawn = {path.stem for path in (project_folder / "figures" / snapshot.name).glob("*.png")}
    assert drawn == set(FIGURES), REMEDY
