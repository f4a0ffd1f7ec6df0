import copy
import json

import pytest

from blockwise.config.datasets import MalformedRows
from blockwise.data.formats.hotpotqa import FORMAT
from blockwise.errors import DatasetError

ROW = {
    "_id": "row-a",
    "question": "Where does the baker live?",
    "answer": "Velm",
    "type": "bridge",
    "level": "easy",
    "supporting_facts": [["Baker", 0], ["Velm", 1]],
    "supporting_titles": ["Baker", "Velm"],
    "context": [["Baker", ["A baker.", " He bakes."]], ["Velm", ["A town.", " It is small."]]],
}
HUB_ROW = {
    "id": "row-a",
    "question": ROW["question"],
    "answer": "Velm",
    "type": "bridge",
    "level": "easy",
    "supporting_facts": {"title": ["Baker", "Velm"], "sent_id": [0, 1]},
    "context": {
        "title": ["Baker", "Velm"],
        "sentences": [["A baker.", " He bakes."], ["A town.", " It is small."]],
    },
}


def read(rows, malformed=MalformedRows.REFUSE):
    return FORMAT.read(rows, origin="some.json", malformed=malformed)


def with_changes(**changes):
    return {**copy.deepcopy(ROW), **changes}


def test_official_row_becomes_one_document():
    (document,), skipped = read([ROW])
    assert skipped == []
    assert (document.id, document.cluster) == ("row-a", "row-a")
    assert document.text == "Baker\nA baker. He bakes.\n\nVelm\nA town. It is small."
    (question,) = document.questions
    assert question.text == "Where does the baker live?"
    assert (question.answer, question.category) == ("Velm", "bridge")
    assert question.evidence == ("row-a",)


def test_hub_row_reads_the_same():
    assert read([HUB_ROW]) == read([ROW])


def without(key):
    return {name: value for name, value in ROW.items() if name != key}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (without("answer"), ["row-a", "answer"]),
        (without("_id"), ["row 1", "_id"]),
        (with_changes(_id="second", question=7), ["second", "question", "7"]),
        (with_changes(_id="second", context=[]), ["second", "context"]),
        (with_changes(_id="second", context=[["Title only"]]), ["context.0"]),
        (with_changes(_id="second", context=[["T", ["text", 3]]]), ["context.0.1.1"]),
        (with_changes(_id="second", supporting_facts=[["Baker", "0"]]), ["supporting_facts.0.1"]),
        (with_changes(_id="second", type="riddle"), ["type", "riddle"]),
        (with_changes(), ["_id", "row-a", "before"]),
        (
            {**HUB_ROW, "id": "hub", "context": {"title": ["a", "b"], "sentences": [["x"]]}},
            ["context.1.1"],
        ),
        (
            {**HUB_ROW, "id": "hub", "supporting_facts": {"title": None, "sent_id": None}},
            ["hub", "key supporting_facts", "None"],
        ),
        (with_changes(_id="\ud800"), ["key _id", r"(_id \ud800)"]),
        (with_changes(_id="second", context=[["T", ["a\ud800"]]]), [r"pair: 'T\na\ud800'"]),
        ("not a row", ["row 1", "str"]),
        (None, ["row 1", "NoneType"]),
    ],
)
def test_malformed_row_is_refused_with_its_place(row, words):
    good = with_changes(_id="row-0") if isinstance(row, dict) and row.get("_id") != "row-a" else ROW
    with pytest.raises(DatasetError) as caught:
        read([good, row])
    for word in ["some.json", "malformed_rows", *words]:
        assert word in str(caught.value)


def test_malformed_row_is_skipped_and_reported():
    documents, skipped = read([without("answer"), with_changes(_id="good")], MalformedRows.SKIP)
    assert [document.id for document in documents] == ["good"]
    assert len(skipped) == 1
    assert "some.json: row 0 (_id row-a): key answer" in skipped[0]


def test_skipped_reports_can_be_written():
    broken = [
        {**HUB_ROW, "id": "hub", "context": {"title": None, "sentences": None}},
        with_changes(_id="\ud800"),
        with_changes(_id="second", context=[["\udfff", ["x"]]]),
    ]
    documents, skipped = read([ROW, *broken], MalformedRows.SKIP)
    assert len(documents) == 1
    assert "key context" in skipped[0]
    assert "key _id" in skipped[1]
    assert "half a surrogate pair" in skipped[2]
    assert "".join(skipped).encode()


def test_nothing_to_read_is_an_error():
    with pytest.raises(DatasetError, match=r"some\.json is empty: no rows"):
        read([])
    with pytest.raises(DatasetError, match=r"all 1 rows are malformed.*answer"):
        read([without("answer")], MalformedRows.SKIP)


@pytest.mark.parametrize("name", ["hotpotqa_dev_300.json", "hotpotqa_train_100.json"])
def test_real_rows_read_without_a_skip(shared_data, name):
    rows = json.loads((shared_data / name).read_text())
    documents, skipped = read(rows)
    assert skipped == []
    assert [document.id for document in documents] == [row["_id"] for row in rows]
    for row, document in zip(rows, documents, strict=True):
        assert all(f"{title}\n" in document.text for title, _ in row["context"])
        assert all(text.strip() in document.text for _, texts in row["context"] for text in texts)
