"""The committed snapshot and the README's claims: of this code, these claims, and one run."""

import re

import pandas as pd
import pytest

from blockwise.claims.ledger import TABLES as LEDGER_TABLES
from blockwise.claims.verdicts import Verdict
from blockwise.config.claims import load_claims
from blockwise.errors import ArtifactError
from blockwise.figures.registry import FIGURES
from blockwise.report.data_dictionary import build
from blockwise.report.front_page import BEGIN, END, with_claims
from blockwise.report.pages import WITHDRAWN
from blockwise.tables.registry import Family, load_tables

NUM_PICTURES = 4
REMEDY = "refresh it: make reproduce, then make reference"


@pytest.fixture(scope="module")
def snapshot(project_folder):
    folder = project_folder / "results" / "reference"
    if not (folder / "claims.csv").exists():
        pytest.skip(f"the snapshot was made before the ledger; {REMEDY}")
    return folder


def test_the_sentence_is_replaced_and_the_rest_of_the_text_stays():
    once = with_claims(f"above\n{BEGIN}\nold\n{END}\nbelow")
    assert once == f"above\n{BEGIN}\n**{WITHDRAWN}**\n{END}\nbelow"
    assert with_claims(once) == once


def test_a_text_without_the_marks_is_refused():
    with pytest.raises(ArtifactError, match="has no place for the claims"):
        with_claims("nothing")


def test_the_readme_withdraws_the_verdicts_in_one_sentence(project_folder):
    readme = (project_folder / "README.md").read_text()
    assert with_claims(readme) == readme, "run `make reference`, or put the sentence there"
    assert WITHDRAWN.count(".") == 1
    for verdict in Verdict:
        assert f"{verdict} |" not in readme


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


def test_the_readme_shows_four_pictures_of_the_snapshot(project_folder):
    readme = (project_folder / "README.md").read_text()
    pictures = re.findall(r"!\[[^\]]+\]\((figures/reference/(\w+)\.png)\)", readme)
    assert len(pictures) == NUM_PICTURES
    for path, figure in pictures:
        assert figure in FIGURES
        assert (project_folder / path).is_file()


def test_every_figure_is_in_the_snapshot(project_folder, snapshot):
    drawn = {path.stem for path in (project_folder / "figures" / snapshot.name).glob("*.png")}
    assert drawn == set(FIGURES), REMEDY
