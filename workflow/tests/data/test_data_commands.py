"""The two command lines of the data stage, run as Snakemake runs them."""

import subprocess
import sys

import pytest

from blockwise.artifacts import read_model, write_json
from blockwise.compaction import sessions
from blockwise.config.profile import Profile
from blockwise.data.documents import DocumentSet, SessionSet
from blockwise.models import renderer

PROFILE = {
    "profile": "tiny",
    "backbones": {
        "small": {
            "model": {"source": "random"},
            "architecture": "dense",
            "reasoning": False,
            "num_parameters": 1e6,
            "context_window_tokens": 4096,
            "engine": {"kind": "vllm"},
        }
    },
    "datasets": {
        "facts": {
            "format": "hotpotqa",
            "source": {"kind": "synthetic", "num_rows": 6},
            "sessions": {"num_sessions": 1, "target_tokens": 1000},
        },
        "broken": {
            "format": "hotpotqa",
            "source": {"kind": "path", "path": "absent.json"},
            "sessions": {"num_sessions": 1, "target_tokens": 1000},
        },
    },
}


@pytest.fixture
def profile_file(tmp_path):
    path = tmp_path / "profile.json"
    experiment = {
        "study": "compaction_end_to_end",
        "tau_tokens": [2048],
        "layouts": ["target_block"],
        "block_sizes_tokens": [512],
        "volume": {"mode": "forced", "total_tokens": 128},
        "answer_tokens": 16,
        "seeds": [0],
    }
    content = PROFILE | {"experiments": {"only": experiment}}
    write_json(path, Profile.model_validate(content).model_dump(mode="json"))
    return path


def prepare(profile_file, dataset):
    output = profile_file.parent / f"{dataset}.json"
    command = [sys.executable, "-m", "blockwise.data.prepare"]
    command += ["--config", profile_file, "--dataset", dataset]
    command += ["--cache", profile_file.parent / "cache", "--output", output]
    return output, subprocess.run(command, capture_output=True, text=True, check=False)


def test_prepare_writes_documents(profile_file):
    output, done = prepare(profile_file, "facts")
    assert done.returncode == 0, done.stderr
    assert "6 documents from 6 rows of synthetic hotpotqa (seed 0), 0 skipped" in done.stderr
    assert len(read_model(output, DocumentSet).documents) == 6


@pytest.mark.parametrize(
    ("dataset", "words"),
    [("broken", ["absent.json", "datasets.broken.source"]), ("unknown", ["unknown", "facts"])],
)
def test_prepare_ends_in_one_message(profile_file, dataset, words):
    output, done = prepare(profile_file, dataset)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words)
    assert not output.exists()


def test_sessions_writes_sessions(profile_file, monkeypatch):
    class WordRenderer:
        def __init__(self, tokenizer_path):
            assert tokenizer_path == "some/tokenizer"

        def count_text(self, text):
            return len(text.split())

    monkeypatch.setattr(renderer, "Renderer", WordRenderer)
    documents, done = prepare(profile_file, "facts")
    assert done.returncode == 0, done.stderr
    model = profile_file.parent / "model.json"
    write_json(
        model,
        {
            "schema_version": 2,
            "backbone": "small",
            "source": "random",
            "path": "some/model",
            "revision": None,
            "tokenizer_path": "some/tokenizer",
            "digest": "0",
            "num_parameters": None,
        },
    )
    output = profile_file.parent / "sessions.json"
    arguments = ["sessions", "--config", profile_file, "--dataset", "facts", "--backbone", "small"]
    arguments += ["--documents", documents, "--model", model, "--output", output]
    monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments])
    sessions.main()
    result = read_model(output, SessionSet)
    assert result.backbone == "small"
    assert result.sessions[0].num_tokens >= 1000
