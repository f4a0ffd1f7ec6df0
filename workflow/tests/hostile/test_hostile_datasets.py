"""Dataset files that anybody may have made: documents that can be written, or one message."""

import json
import sys

import pytest
from hostile_values import REPEATABLE, spoilt
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from blockwise.artifacts import read_model, write_model
from blockwise.config.datasets import Dataset, SyntheticSource
from blockwise.config.profile import Profile
from blockwise.data import prepare, synthetic
from blockwise.data.documents import DocumentSet
from blockwise.data.prepare import prepare_documents
from blockwise.errors import DatasetError, run_command

SMALL = SyntheticSource(
    kind="synthetic",
    num_rows=2,
    sentences_per_paragraph=1,
    chat_sessions_per_row=2,
    turns_per_chat_session=8,
)
ROWS = {
    "hotpotqa": synthetic.hotpotqa_rows(SMALL),
    "locomo": [
        {**row, "qa": row["qa"][:3]} for row in json.loads(json.dumps(synthetic.locomo_rows(SMALL)))
    ],
    "longmemeval": [
        {
            "question_id": f"q{number}",
            "question_type": "multi-session",
            "question": "How many?",
            "answer": 2,
            "question_date": "2023/06/10 (Sat) 09:15",
            "haystack_session_ids": ["a", "b"],
            "haystack_dates": ["2023/06/02 (Fri) 10:00", "2023/05/30 (Tue) 23:40"],
            "haystack_sessions": [
                [{"role": "user", "content": "One more.", "has_answer": True}],
                [{"role": "user", "content": "One."}, {"role": "assistant", "content": "Yes."}],
            ],
            "answer_session_ids": ["a", "b"],
        }
        for number in range(2)
    ],
}
MAX_MESSAGE_CHARS = 2000


def prepared(path, dataset_format, malformed_rows="refuse"):
    """The documents of a file as the stage writes them, or None where it refuses in words."""
    dataset = Dataset(
        format=dataset_format,
        source={"kind": "path", "path": str(path)},
        sessions={"num_sessions": 1, "target_tokens": 10},
        malformed_rows=malformed_rows,
    )
    try:
        documents = prepare_documents("d", dataset, path.parent / "cache")
    except DatasetError as error:
        assert len(str(error)) < MAX_MESSAGE_CHARS
        str(error).encode()
        return None
    write_model(path.with_suffix(".prepared"), documents)
    assert read_model(path.with_suffix(".prepared"), DocumentSet) == documents
    return documents


@pytest.mark.parametrize("dataset_format", ROWS)
@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow], **REPEATABLE)
@given(data=st.data())
def test_spoilt_rows_are_refused_skipped_or_read(tmp_path_factory, dataset_format, data):
    path = tmp_path_factory.getbasetemp() / f"{dataset_format}.json"
    path.write_text(json.dumps(data.draw(spoilt(ROWS[dataset_format]))))
    strict = prepared(path, dataset_format)
    lenient = prepared(path, dataset_format, "skip")
    if strict is not None:
        assert strict == lenient
    if lenient is not None:
        ids = [document.id for document in lenient.documents]
        assert len(set(ids)) == len(ids)


@settings(max_examples=80, **REPEATABLE)
@given(st.one_of(st.binary(max_size=40), st.text('[]{}:,"-.0eINaf\\u ', max_size=30)))
@example("[" * 100_000)
@example('{"a":' * 100_000)
@example("[" + "1" * 5000 + "]")
@example("[NaN]")
def test_a_file_of_anything_is_refused_in_words(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "anything.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for dataset_format in ROWS:
        assert prepared(path, dataset_format) is None


def locomo(**changes):
    return [{**ROWS["locomo"][0], **changes}]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"qa": [{"question": "q", "category": 4, "answer": float("nan")}]}, "answer.*got nan"),
        ({"qa": [{"question": "q", "category": 4, "answer": float("inf")}]}, "answer.*got inf"),
        (
            {
                "conversation": {
                    **ROWS["locomo"][0]["conversation"],
                    "session_01": ROWS["locomo"][0]["conversation"]["session_2"],
                    "session_01_date_time": "today",
                }
            },
            "session_01: chat session 01 is there twice",
        ),
    ],
)
def test_what_would_be_counted_wrong_is_malformed(tmp_path, changes, said):
    path = tmp_path / "l.json"
    path.write_text(json.dumps(locomo(**changes)))
    dataset = Dataset(
        format="locomo",
        source={"kind": "path", "path": str(path)},
        sessions={"num_sessions": 1, "target_tokens": 10},
    )
    with pytest.raises(DatasetError, match=said):
        prepare_documents("d", dataset, tmp_path)


def test_numbers_of_thousands_of_digits_name_no_chat_session(tmp_path):
    row = ROWS["locomo"][0]
    digits = "7" * 5000
    conversation = {**row["conversation"], f"session_{digits}": [{"speaker": "a", "text": "b"}]}
    qa = [{"question": "q", "category": 4, "answer": "a", "evidence": [f"D{digits}:1"]}]
    path = tmp_path / "l.json"
    path.write_text(json.dumps(locomo(conversation=conversation, qa=qa)))
    assert len(prepared(path, "locomo").documents) == 2


@pytest.mark.parametrize("link", ["ring", "nothing", "folder", "file"])
def test_a_link_is_read_and_never_written_through(tmp_path, link):
    target, path = tmp_path / "target.json", tmp_path / "link.json"
    target.write_text(json.dumps(ROWS["hotpotqa"]))
    before = target.read_bytes()
    to = {"ring": path, "nothing": tmp_path / "x", "folder": tmp_path, "file": target}[link]
    path.symlink_to(to)
    assert (prepared(path, "hotpotqa") is not None) == (link == "file")
    assert target.read_bytes() == before


def test_the_command_ends_with_status_2_and_no_traceback(tmp_path, monkeypatch, capsys):
    content = {
        "profile": "t",
        "backbones": {
            "small": {
                "model": {"source": "random"},
                "architecture": "dense",
                "reasoning": False,
                "num_parameters": 1,
                "context_window_tokens": 4096,
                "engine": {"kind": "vllm"},
            }
        },
        "datasets": {
            "d": {
                "format": "hotpotqa",
                "source": {"kind": "path", "path": str(tmp_path / "deep.json")},
                "sessions": {"num_sessions": 1, "target_tokens": 10},
            }
        },
        "experiments": {
            "e": {
                "study": "compaction_end_to_end",
                "tau_tokens": [2048],
                "block_sizes_tokens": [512],
                "volume": {"mode": "forced", "total_tokens": 128},
            }
        },
    }
    write_model(tmp_path / "config.json", Profile.model_validate(content))
    (tmp_path / "deep.json").write_text("[" * 100_000)
    words = ["prepare", "--config", str(tmp_path / "config.json"), "--dataset", "d"]
    words += ["--cache", str(tmp_path), "--output", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        run_command(prepare.main)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("error: dataset d: ")
    assert "Traceback" not in said
    assert not (tmp_path / "out.json").exists()
