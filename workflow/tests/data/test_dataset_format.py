"""Formats: each is found by the name of its module, and declares what the study asks of it."""

import pytest
from pydantic import ValidationError

from blockwise.config.datasets import Dataset, MalformedRows, known_formats
from blockwise.data.dataset_format import load_format
from blockwise.data.documents import Question
from blockwise.errors import DatasetError
from blockwise.tables.compaction.parts.categories import categories_of

FORMATS = {name: load_format(name) for name in known_formats()}


def test_formats_are_the_modules_of_their_folder():
    assert {"hotpotqa", "locomo", "longmemeval"} <= set(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_the_usual_question_is_one_that_counts_and_can_be_scored(name):
    found = FORMATS[name]
    category = found.usual.category
    assert categories_of(name, category) == "headline"
    question = Question(id="q", text="?", answer="Vaduz", category=category, evidence=("d",))
    right, wrong = found.score("Vaduz", question), found.score("Bern", question)
    assert (right.f1, right.contains_gold) == (1, 1)
    assert (wrong.f1, wrong.contains_gold) == (0, 0)
    assert right.exact_match in (None, 1)


@pytest.mark.parametrize("name", FORMATS)
def test_rows_of_nothing_are_malformed_in_every_format(name):
    for row in ({}, [], {FORMATS[name].id_keys[0]: "a"}):
        with pytest.raises(DatasetError, match=r"^malformed row: x\.json: row 0"):
            FORMATS[name].read([row], origin="x.json", malformed=MalformedRows.REFUSE)


def test_an_unknown_format_is_refused_with_those_there_are():
    settings = {
        "source": {"kind": "synthetic"},
        "sessions": {"num_sessions": 1, "target_tokens": 1},
    }
    for name in ("squad", "__init__", "../rows"):
        with pytest.raises(ValidationError, match=r"is unknown; choose of \['hotpotqa', 'locomo'"):
            Dataset(format=name, **settings)
        with pytest.raises(DatasetError, match="is unknown; there are: hotpotqa, locomo, "):
            load_format(name)
