import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockwise.compaction.sessions import build_sessions
from blockwise.config.datasets import Dataset, SessionPlan
from blockwise.data.documents import Document, DocumentSet, Question
from blockwise.data.prepare import prepare_documents
from blockwise.data.sources import GENERATORS
from blockwise.errors import DatasetError

WINDOW = 1000


def count_tokens(text):
    return len(text.split())


def document(name, num_words, *, cluster=None, evidence=(), num_questions=1):
    questions = tuple(
        Question(
            id=f"{name}/q{index}",
            text="what is it",  # three words
            answer="x",
            category="4",
            evidence=tuple(evidence) or (name,),
        )
        for index in range(num_questions)
    )
    return Document(id=name, cluster=cluster or name, text="word " * num_words, questions=questions)


def document_set(documents, dataset_format="hotpotqa"):
    return DocumentSet(
        dataset="mine",
        format=dataset_format,
        origin="a test",
        content_digest="",
        num_rows=len({item.cluster for item in documents}),
        num_skipped_rows=2,
        skipped=("one", "two"),
        documents=tuple(documents),
    )


def build(documents, *, dataset_format="hotpotqa", window=WINDOW, windows=None, **plan):
    return build_sessions(
        document_set(documents, dataset_format),
        SessionPlan(**plan),
        count_tokens,
        "small",
        window,
        window_tokens_of=windows,
    )


def ids(session):
    return [item.id for item in session.documents]


def chats(num_conversations, num_chat_sessions, num_words=7):
    return [
        document(f"c{number}/s{index}", num_words, cluster=f"c{number}")
        for number in range(num_conversations)
        for index in range(num_chat_sessions)
    ]


# --- HotpotQA ---------------------------------------------------------------------------


def test_hotpotqa_sessions_are_consecutive_and_the_reaching_document_belongs():
    documents = [document(f"d{index}", 7) for index in range(9)]  # ten tokens each
    result = build(documents, num_sessions=3, target_tokens=25)
    assert [ids(session) for session in result.sessions] == [
        ["d0", "d1", "d2"],
        ["d3", "d4", "d5"],
        ["d6", "d7", "d8"],
    ]
    assert [session.num_tokens for session in result.sessions] == [30, 30, 30]
    assert [session.id for session in result.sessions] == ["mine-000", "mine-001", "mine-002"]
    assert (result.dataset, result.backbone, result.num_skipped_rows) == ("mine", "small", 2)


def test_target_met_exactly_takes_no_further_document():
    documents = [document(f"d{index}", 7) for index in range(4)]
    result = build(documents, num_sessions=2, target_tokens=20)
    assert [ids(session) for session in result.sessions] == [["d0", "d1"], ["d2", "d3"]]


def test_documents_that_run_out_are_an_error():
    documents = [document(f"d{index}", 7) for index in range(5)]
    with pytest.raises(DatasetError) as caught:
        build(documents, num_sessions=2, target_tokens=30)
    for word in [
        "mine",
        "session 1 of 2",
        "20 of target_tokens 30",
        "5 documents (5 rows)",
        "Lower",
    ]:
        assert word in str(caught.value)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=30),
    st.integers(1, 4),
    st.integers(1, 120),
)
@settings(deadline=None)
def test_hotpotqa_sessions_partition_a_prefix(sizes, num_sessions, target_tokens):
    documents = [document(f"d{index}", size) for index, size in enumerate(sizes)]
    try:
        result = build(documents, num_sessions=num_sessions, target_tokens=target_tokens)
    except DatasetError:
        # refused only where the documents could not have been enough
        longest = max(size + 3 for size in sizes)
        assert sum(size + 3 for size in sizes) < num_sessions * (target_tokens + longest)
        return
    chained = [name for session in result.sessions for name in ids(session)]
    assert chained == [item.id for item in documents][: len(chained)]
    for session in result.sessions:
        last = count_tokens(session.documents[-1].text) + 3
        assert session.num_tokens - last < target_tokens <= session.num_tokens


# --- LoCoMo -----------------------------------------------------------------------------


def test_locomo_conversations_are_chained_and_rotate():
    result = build(chats(3, 2), dataset_format="locomo", num_sessions=3, target_tokens=30)
    assert [ids(session) for session in result.sessions] == [
        ["c0/s0", "c0/s1", "c1/s0"],
        ["c1/s0", "c1/s1", "c2/s0"],
        ["c2/s0", "c2/s1", "c0/s0"],
    ]


def test_locomo_sessions_may_hold_everything_once():
    result = build(chats(2, 2), dataset_format="locomo", num_sessions=2, target_tokens=40)
    assert [sorted(ids(session)) for session in result.sessions] == [sorted(ids_of(2, 2))] * 2
    with pytest.raises(DatasetError, match="40 of target_tokens 41"):
        build(chats(2, 2), dataset_format="locomo", num_sessions=1, target_tokens=41)


def ids_of(num_conversations, num_chat_sessions):
    return [item.id for item in chats(num_conversations, num_chat_sessions)]


def test_more_sessions_than_conversations_would_repeat_one():
    with pytest.raises(DatasetError, match=r"3 sessions .* 2 conversations.*Set num_sessions to 2"):
        build(chats(2, 2), dataset_format="locomo", num_sessions=3, target_tokens=10)


def test_question_without_its_evidence_is_dropped_and_not_counted():
    documents = [
        document("c0/s0", 7, cluster="c0"),
        document("c1/s0", 7, cluster="c1", evidence=("c0/s0", "c1/s0")),
    ]
    result = build(documents, dataset_format="locomo", num_sessions=2, target_tokens=15)
    whole, rotated = result.sessions
    assert [len(item.questions) for item in whole.documents] == [1, 1]
    assert whole.num_tokens == 20
    assert ids(rotated) == ["c1/s0", "c0/s0"]
    assert [len(item.questions) for item in rotated.documents] == [0, 1]
    assert rotated.num_tokens == 17


# --- both -------------------------------------------------------------------------------


def test_at_most_so_many_questions_are_kept():
    documents = [document("d0", 7, num_questions=5), document("d1", 7, num_questions=1)]
    result = build(documents, num_sessions=1, target_tokens=20, max_questions_per_document=2)
    (session,) = result.sessions
    assert [[question.id for question in item.questions] for item in session.documents] == [
        ["d0/q0", "d0/q1"],
        ["d1/q0"],
    ]
    assert session.num_tokens == 7 + 6 + 7 + 3


def test_document_over_the_window_names_a_backbone_that_fits():
    documents = [document("d0", 7), document("long", 197)]
    windows = {"small": 100, "middle": 199, "large": 200, "huge": 4000}
    with pytest.raises(DatasetError) as caught:
        build(documents, num_sessions=1, target_tokens=50, window=100, windows=windows)
    text = str(caught.value)
    assert "document long has 200 tokens" in text
    assert "window of small is 100" in text
    assert "huge, large has a window that fits" in text
    assert "middle" not in text
    with pytest.raises(DatasetError, match="no backbone of this profile"):
        build(documents, num_sessions=1, target_tokens=50, window=100)


def test_document_over_the_window_that_no_session_reaches_is_no_error():
    documents = [document("d0", 7), document("long", 197)]
    assert len(build(documents, num_sessions=1, target_tokens=5, window=100).sessions) == 1


def test_digest_follows_the_content():
    documents = [document(f"d{index}", 7) for index in range(4)]
    first = build(documents, num_sessions=1, target_tokens=20)
    assert build(documents, num_sessions=1, target_tokens=20) == first
    longer = build(documents, num_sessions=1, target_tokens=30)
    assert longer.content_digest != first.content_digest


def synthetic(dataset_format):
    return Dataset.model_validate(
        {
            "format": dataset_format,
            "source": {"kind": "synthetic", "num_rows": 12},
            "sessions": {"num_sessions": 3, "target_tokens": 1200},
        }
    )


@pytest.mark.parametrize("dataset_format", GENERATORS)
def test_synthetic_documents_make_sessions(dataset_format, tmp_path):
    dataset = synthetic(dataset_format)
    documents = prepare_documents("mine", dataset, tmp_path)
    assert (documents.num_rows, documents.num_skipped_rows) == (12, 0)
    result = build_sessions(documents, dataset.sessions, count_tokens, "b", WINDOW)
    assert_questions_follow_their_evidence(result)


@pytest.mark.parametrize(
    ("name", "dataset_format"),
    [("hotpotqa_dev_300.json", "hotpotqa"), ("locomo_6.json", "locomo")],
)
def test_real_documents_make_sessions(shared_data, tmp_path, name, dataset_format):
    dataset = Dataset.model_validate(
        {
            "format": dataset_format,
            "source": {"kind": "path", "path": str(shared_data / name)},
            "sessions": {"num_sessions": 5, "target_tokens": 8000},
        }
    )
    documents = prepare_documents("real", dataset, tmp_path)
    result = build_sessions(documents, dataset.sessions, count_tokens, "b", 8000)
    assert len(result.sessions) == 5
    assert_questions_follow_their_evidence(result)
    if dataset_format == "locomo":
        firsts = [session.documents[0].cluster for session in result.sessions]
        assert firsts == ["conv-26", "conv-30", "conv-41", "conv-42", "conv-43"]


def assert_questions_follow_their_evidence(result):
    for session in result.sessions:
        known = set()
        for item in session.documents:
            assert item.id not in known
            known.add(item.id)
            assert all(known.issuperset(question.evidence) for question in item.questions)
        assert sum(len(item.questions) for item in session.documents) > 0


def test_chat_sessions_stay_in_chronological_order(shared_data, tmp_path):
    rows = json.loads((shared_data / "locomo_6.json").read_text())
    dataset = Dataset.model_validate(
        {
            "format": "locomo",
            "source": {"kind": "path", "path": str(shared_data / "locomo_6.json")},
            "sessions": {"num_sessions": 6, "target_tokens": 30000},
        }
    )
    documents = prepare_documents("real", dataset, tmp_path)
    result = build_sessions(documents, dataset.sessions, count_tokens, "b", 8000)
    assert len(result.sessions) == len(rows)
    for session in result.sessions:
        by_cluster = {}
        for item in session.documents:
            by_cluster.setdefault(item.cluster, []).append(
                int(re.search(r"session_(\d+)$", item.id)[1])
            )
        for numbers in by_cluster.values():
            assert numbers == list(range(1, len(numbers) + 1))
