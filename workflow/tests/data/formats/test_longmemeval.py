"""LongMemEval: from made-up official rows to documents, sessions and scores."""

import copy
import json
import re

import pytest

from blockwise.compaction.sessions import build_sessions
from blockwise.config.datasets import Dataset, MalformedRows
from blockwise.data.documents import Question
from blockwise.data.formats.longmemeval import FORMAT, HEADLINE_CATEGORIES, acceptable_answers
from blockwise.data.prepare import prepare_documents
from blockwise.errors import DatasetError

ROW = {
    "question_id": "q1",
    "question_type": "knowledge-update",
    "question": "Where do I keep my bike?",
    "answer": "In the shed",
    "question_date": "2023/06/10 (Sat) 09:15",
    "haystack_session_ids": ["late", "filler", "early", "filler"],
    "haystack_dates": [
        "2023/06/02 (Fri) 10:00",
        "2023/06/05 (Mon) 08:30",
        "2023/05/30 (Tue) 23:40",
        "2023/05/30 (Tue) 23:05",
    ],
    "haystack_sessions": [
        [{"role": "user", "content": "It is in the shed now.", "has_answer": True}],
        [{"role": "user", "content": "Thanks."}],
        [
            {"role": "user", "content": "My bike is in the hall.", "has_answer": True},
            {"role": "assistant", "content": "Noted.", "has_answer": False},
        ],
        [{"role": "user", "content": "Thanks."}],
    ],
    "answer_session_ids": ["late", "early"],
}
SEVEN = "7 days. 8 days (including the last day) is also acceptable."


def read(rows, malformed=MalformedRows.REFUSE):
    return FORMAT.read(rows, origin="chats.json", malformed=malformed)


def with_changes(**changes):
    return {**copy.deepcopy(ROW), **changes}


def asked(row):
    (question,) = [one for document in read([row])[0] for one in document.questions]
    return question


def test_chat_sessions_become_documents_in_the_order_of_their_dates():
    documents, skipped = read([ROW])
    assert skipped == []
    assert [document.id for document in documents] == ["q1/000", "q1/001", "q1/002", "q1/003"]
    assert {document.cluster for document in documents} == {"q1"}
    headings = [document.text.split("\n")[0] for document in documents]
    dates = [heading.rpartition(", ")[2] for heading in headings]
    assert dates == sorted(ROW["haystack_dates"])
    assert documents[1].text.split("\n")[1:] == [
        "User: My bike is in the hall.",
        "Assistant: Noted.",
    ]


def test_the_question_is_asked_at_its_last_evidence_and_names_user_and_date():
    documents, _ = read([ROW])
    assert [len(document.questions) for document in documents] == [0, 0, 1, 0]
    (question,) = documents[2].questions
    assert question.evidence == ("q1/001", "q1/002")
    assert (question.id, question.answer, question.category) == (
        "q1",
        "In the shed",
        "knowledge-update",
    )
    (user,) = {re.search(r"user (\w{6})", document.text)[1] for document in documents}
    assert question.text == (
        f"Where do I keep my bike? (asked by user {user} on 2023/06/10 (Sat) 09:15)"
    )


def test_a_chat_session_that_stands_twice_is_two_documents():
    texts = [document.text for document in read([ROW])[0]]
    assert sum("Thanks." in text for text in texts) == 2
    both = asked(with_changes(answer_session_ids=["filler"]))
    assert both.evidence == ("q1/000", "q1/003")


def test_an_abstention_question_is_a_category_and_does_not_give_itself_away():
    abstention = with_changes(question_id="q1_abs", answer="You did not mention this information.")
    documents, _ = read([abstention])
    question = asked(abstention)
    assert question.category == "abstention"
    assert not any("abs" in text for text in [question.text, *(one.text for one in documents)])
    assert documents[0].text != read([ROW])[0][0].text  # another user than that of q1


@pytest.mark.parametrize("named", [[], ["elsewhere"]])
def test_without_evidence_the_question_comes_at_the_end(named):
    assert asked(with_changes(answer_session_ids=named)).evidence == ("q1/003",)


def test_chat_sessions_without_a_message_are_left_out():
    sessions = [*ROW["haystack_sessions"][:3], []]
    documents, _ = read([with_changes(haystack_sessions=sessions)])
    assert len(documents) == 3
    with pytest.raises(DatasetError, match="no chat session has a message"):
        read([with_changes(haystack_sessions=[[], [], [], []])])


def test_numbers_are_answers():
    assert asked(with_changes(answer=3)).answer == "3"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"haystack_dates": ROW["haystack_dates"][:3]}, "have 4, 3 and 4 entries"),
        ({"question_type": "riddle"}, "key question_type"),
        ({"answer": None}, "key answer"),
        ({"question_date": "10 June"}, "key question_date.*got '10 June'"),
        ({"haystack_sessions": [[{"role": "cat", "content": ""}]] * 4}, r"haystack_sessions\.0\.0"),
        ({"haystack_session_ids": []}, "key haystack_session_ids"),
    ],
)
def test_malformed_rows_are_named_and_skipped(changes, said):
    broken = with_changes(question_id="q2", **changes)
    with pytest.raises(DatasetError, match=rf"chats\.json: row 0 \(question_id q2\): .*{said}"):
        read([broken])
    documents, (report,) = read([broken, ROW], MalformedRows.SKIP)
    assert len(documents) == 4
    assert re.search(said, report)


def test_a_question_that_comes_twice_is_malformed():
    with pytest.raises(DatasetError, match="key question_id: document 'q1/000' appeared before"):
        read([ROW, ROW])


# --- scores -------------------------------------------------------------------------------


def score(answer, gold, category):
    question = Question(id="q", text="?", answer=gold, category=category, evidence=("d",))
    return FORMAT.score(answer, question)


@pytest.mark.parametrize(
    ("category", "answer", "gold", "f1", "contained"),
    [
        # words {in, shed} of {it, is, in, shed}: P=1/2, R=1
        ("knowledge-update", "It is in the shed.", "In the shed", 2 / 3, 1),
        # an outdated answer beside the right one is accepted
        ("knowledge-update", "First in the hall, then in the shed", "in the shed", 0.5, 1),
        ("single-session-user", "In the hall", "In the shed", 0.5, 0),
        ("multi-session", "3", "3", 1, 1),
        # of two acceptable answers either will do
        ("temporal-reasoning", "7 days", SEVEN, 1, 1),
        ("temporal-reasoning", "8 days", SEVEN, 1, 1),
        ("temporal-reasoning", "9 days", SEVEN, 0.5, 0),
        ("abstention", "You did not mention a hamster.", "You did not mention this.", 1, 1),
        ("abstention", "I don't have enough; there is no information on it.", "anything", 1, 1),
        ("abstention", "You did not.", "You did not mention this.", 0, 0),
        ("abstention", "anything", "anything", 0, 0),
    ],
)
def test_scores_by_hand(category, answer, gold, f1, contained):
    result = score(answer, gold, category)
    assert result.exact_match is None
    assert result.f1 == pytest.approx(f1)
    assert result.contains_gold == contained


@pytest.mark.parametrize(
    ("gold", "accepted"),
    [
        ("7 days. 8 days (including the last day) is also acceptable.", ["7 days", "8 days"]),
        ("4 weeks. 5 weeks is also acceptable", ["4 weeks", "5 weeks"]),
        ("7 days. It rained.", ["7 days. It rained."]),
    ],
)
def test_golds_with_two_answers(gold, accepted):
    assert acceptable_answers(gold) == accepted


def test_rubrics_and_abstention_stand_apart():
    assert len(HEADLINE_CATEGORIES) == 5
    assert HEADLINE_CATEGORIES.isdisjoint({"single-session-preference", "abstention"})


# --- sessions -----------------------------------------------------------------------------


def sessions(tmp_path, num_rows, **plan):
    path = tmp_path / "chats.json"
    path.write_text(json.dumps([with_changes(question_id=f"q{n}") for n in range(num_rows)]))
    source = {"kind": "path", "path": str(path)}
    dataset = Dataset(format="longmemeval", source=source, sessions=plan)
    documents = prepare_documents("l", dataset, tmp_path)
    count_tokens = lambda text: len(text.split())  # noqa: E731
    return build_sessions(documents, dataset.sessions, count_tokens, "b", 1000).sessions


def test_sessions_start_with_a_haystack_each_and_go_round(tmp_path):
    first, second = sessions(tmp_path, 2, num_sessions=2, target_tokens=115)
    clusters = [[document.cluster for document in one.documents] for one in (first, second)]
    assert clusters == [["q0"] * 4 + ["q1"] * 3, ["q1"] * 4 + ["q0"] * 3]
    assert [len(document.questions) for document in first.documents] == [0, 0, 1, 0, 0, 0, 1]


def test_a_session_that_ends_before_the_evidence_asks_nothing(tmp_path):
    (session,) = sessions(tmp_path, 1, num_sessions=1, target_tokens=20)
    assert len(session.documents) == 2
    assert not any(document.questions for document in session.documents)
