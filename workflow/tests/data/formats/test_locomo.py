import copy
import json
import re

import pytest

from blockwise.config.datasets import MalformedRows
from blockwise.data.formats.locomo import FORMAT, evidence_chat_sessions
from blockwise.errors import DatasetError


def turn(dia_id, speaker, text, **more):
    return {"dia_id": dia_id, "speaker": speaker, "text": text, **more}


ROW = {
    "sample_id": "conv-1",
    "conversation": {
        "speaker_a": "Ann",
        "speaker_b": "Bob",
        "session_2_date_time": "1:56 pm on 8 May, 2023",
        "session_2": [turn("D2:1", "Bob", "I have a cat.", blip_caption="a cat", img_url=["x"])],
        "session_10_date_time": "9:00 am on 1 June, 2023",
        "session_10": [turn("D10:1", "Ann", "Bye.")],
        "session_1_date_time": "8:00 am on 1 May, 2023",
        "session_1": [turn("D1:1", "Ann", "Hello Bob."), turn("D1:2", "Bob", "Hello.")],
        "session_11_date_time": "a surplus date",
    },
    "qa": [
        {"question": "Who has a cat?", "answer": "Bob", "evidence": ["D2:1"], "category": 4},
        {"question": "How many?", "answer": 2, "evidence": ["D2:1", "D1:1"], "category": 1},
        {"question": "Ann's cat?", "adversarial_answer": "Tom", "evidence": [], "category": 5},
        {"question": "Lost?", "answer": "yes", "evidence": ["D"], "category": 3},
        {"question": "Not there?", "answer": "yes", "evidence": ["D30:05"], "category": 2},
        {"question": "Beyond?", "answer": "yes", "evidence": ["D1:2 D12:1"], "category": 4},
    ],
}


def read(rows, malformed=MalformedRows.REFUSE):
    return FORMAT.read(rows, origin="chats.json", malformed=malformed)


def changed(change):
    row = copy.deepcopy(ROW)
    change(row)
    return row


@pytest.mark.parametrize(
    ("evidence", "numbers"),
    [
        (["D1:3"], [1]),
        (["D8:6; D9:17"], [8, 9]),
        (["D1:3 D2:1"], [1, 2]),
        (["D:11:26"], [11]),
        (["D"], []),
        ([], []),
        (["D30:05"], [30]),
        (["D10:1", "D2:1", "D2:9"], [2, 10]),
        (["(D4:5),D3:1"], [3, 4]),
    ],
)
def test_evidence_strings(evidence, numbers):
    assert evidence_chat_sessions(evidence) == numbers


def test_chat_sessions_become_documents_in_chronological_order():
    documents, skipped = read([ROW])
    assert skipped == []
    assert [document.id for document in documents] == [
        "conv-1/session_1",
        "conv-1/session_2",
        "conv-1/session_10",
    ]
    assert {document.cluster for document in documents} == {"conv-1"}
    assert documents[0].text == (
        "Chat between Ann and Bob, 8:00 am on 1 May, 2023\nAnn: Hello Bob.\nBob: Hello."
    )
    assert documents[1].text.endswith("Bob: I have a cat. [shares a photo: a cat]")


def test_questions_stand_at_the_last_chat_session_of_their_evidence():
    first, second, last = read([ROW])[0]
    by_text = {
        question.text.partition(" (")[0]: (document, question)
        for document in (first, second, last)
        for question in document.questions
    }
    document, question = by_text["Who has a cat?"]
    assert document is second
    assert question.id == "conv-1/q0"
    assert question.text == "Who has a cat? (asked about the chats of Ann and Bob)"
    assert (question.answer, question.category) == ("Bob", "4")
    document, question = by_text["How many?"]
    assert document is second
    assert question.evidence == ("conv-1/session_1", "conv-1/session_2")
    assert question.answer == "2"
    document, question = by_text["Ann's cat?"]
    assert document is last
    assert question.answer == "no information available"
    for lost in ("Lost?", "Not there?"):  # nothing parsable, or no such chat session
        document, question = by_text[lost]
        assert document is last
        assert question.evidence == ("conv-1/session_10",)
    document, question = by_text["Beyond?"]
    assert document is first
    assert question.evidence == ("conv-1/session_1",)
    assert sum(len(document.questions) for document in (first, second, last)) == len(ROW["qa"])


def test_absent_keys_may_be_null_as_column_exports_write_them():
    def change(row):
        row["conversation"]["session_3"] = None
        row["conversation"]["session_3_date_time"] = None
        row["qa"][2] |= {"answer": None, "evidence": None}
        row["qa"][0]["adversarial_answer"] = None
        row["conversation"]["session_1"][0]["blip_caption"] = None

    assert read([changed(change)]) == read([ROW])


MALFORMED = [
    (lambda row: row.pop("conversation"), ["conversation"]),
    (lambda row: row["conversation"].pop("speaker_b"), ["speaker_b"]),
    (lambda row: row["conversation"].pop("session_2_date_time"), ["session_2", "date_time"]),
    (lambda row: row["conversation"]["session_2"][0].pop("speaker"), ["session_2", "speaker"]),
    (lambda row: row["conversation"].update(session_2="text"), ["session_2", "turns"]),
    (lambda row: row["qa"][0].pop("answer"), ["qa.0", "answer", "category 4"]),
    (lambda row: row["qa"][1].update(category=6), ["qa.1.category", "6"]),
    (lambda row: row["qa"][1].update(category="1"), ["qa.1.category"]),
    (lambda row: row["qa"][1].update(evidence="D1:1"), ["qa.1.evidence"]),
    (
        lambda row: [row["conversation"].pop(f"session_{number}") for number in (1, 2, 10)],
        ["conversation", "session_N"],
    ),
]


@pytest.mark.parametrize(("change", "words"), MALFORMED)
def test_malformed_conversation_is_refused_or_skipped(change, words):
    bad = changed(change)
    good = changed(lambda row: row.update(sample_id="conv-2"))
    with pytest.raises(DatasetError) as caught:
        read([good, bad])
    for word in ["chats.json", "row 1", "conv-1", *words]:
        assert word in str(caught.value)
    documents, skipped = read([bad, good], MalformedRows.SKIP)
    assert {document.cluster for document in documents} == {"conv-2"}
    assert len(skipped) == 1


def test_duplicate_conversation_is_malformed():
    with pytest.raises(DatasetError, match=r"row 1 \(sample_id conv-1\).*before"):
        read([ROW, ROW])


def test_real_conversations_read_without_a_skip(shared_data):
    rows = json.loads((shared_data / "locomo_6.json").read_text())
    documents, skipped = read(rows)
    assert skipped == []
    num_sessions = sum(
        1 for row in rows for key in row["conversation"] if re.fullmatch(r"session_\d+", key)
    )
    assert len(documents) == num_sessions == 156
    questions = [question for document in documents for question in document.questions]
    assert len(questions) == sum(len(row["qa"]) for row in rows) == 1157
    assert len({question.id for question in questions}) == 1157
    position = {document.id: index for index, document in enumerate(documents)}
    for index, document in enumerate(documents):
        for question in document.questions:
            assert question.evidence
            assert position[question.evidence[-1]] == index
            assert list(question.evidence) == sorted(question.evidence, key=position.__getitem__)
    # LoCoMo: about 23% of the answerable questions need more
    # than one chat session.
    answerable = [question for question in questions if question.category != "5"]
    num_multi = sum(len(question.evidence) > 1 for question in answerable)
    assert 0.15 < num_multi / len(answerable) < 0.3


def test_half_a_surrogate_pair_is_a_malformed_row():
    broken = changed(lambda row: row["conversation"]["session_1"][0].update(text="Hi \ud800"))
    with pytest.raises(DatasetError, match=r"conv-1.*half a surrogate pair"):
        read([broken])
    good = changed(lambda row: row.update(sample_id="conv-2"))
    documents, skipped = read([broken, good], MalformedRows.SKIP)
    assert {document.cluster for document in documents} == {"conv-2"}
    assert len(skipped) == 1
