"""Pinning writes only what was resolved, into the file that says `unpinned`."""

import hashlib
from types import SimpleNamespace

import pytest
import yaml

from blockwise.config import pin
from blockwise.config.load import load_profile, unpinned
from blockwise.errors import ConfigError

COMMIT = "0" * 39 + "a"


def paper_files(project_folder, tmp_path):
    files = []
    for name in ("config.yaml", "paper.yaml"):
        copy = tmp_path / name
        copy.write_text((project_folder / "config" / name).read_text())
        files.append(copy)
    return files


def test_values_are_written_in_place_and_comments_stay(project_folder, tmp_path, monkeypatch):
    files = paper_files(project_folder, tmp_path)
    asked = {"model": [], "dataset": []}

    def answer(kind):
        return lambda name: asked[kind].append(name) or SimpleNamespace(sha=COMMIT)

    api = SimpleNamespace(model_info=answer("model"), dataset_info=answer("dataset"))
    monkeypatch.setattr(pin, "HfApi", lambda: api)
    monkeypatch.setattr(pin, "_digest_of_url", lambda url: "b" * 64)
    before = files[1].read_text()
    profile = load_profile(files)
    keys = unpinned(profile)
    assert len(keys) == 10
    assert {("judge", "model", "revision"), ("mxfp4", "tokenizer", "revision")} <= set(keys)
    for key in keys:
        assert pin.write_value(files, key, pin.resolve(profile, key)) == files[1]
    assert asked["dataset"] == ["hotpotqa/hotpot_qa", "allenai/c4"]
    assert len(asked["model"]) == 7  # four backbones, embedder, judge, tokenizer
    pinned = load_profile(files)
    assert unpinned(pinned) == []
    assert pinned.backbones["gpt-oss-20b"].model.revision == COMMIT
    assert pinned.judge.model.revision == COMMIT
    assert pinned.datasets["locomo"].source.sha256 == "b" * 64
    after = files[1].read_text()
    assert after.replace(COMMIT, "unpinned").replace("b" * 64, "unpinned") == before


def test_a_file_url_is_hashed_where_it_lies(tmp_path):
    file = tmp_path / "rows of mine.json"
    file.write_bytes(b"[]")
    assert pin._digest_of_url(file.as_uri()) == hashlib.sha256(b"[]").hexdigest()


def test_an_unreachable_hub_leaves_the_value_unpinned(project_folder, tmp_path, monkeypatch):
    def unreachable(name):
        raise OSError("no route")

    monkeypatch.setattr(pin, "HfApi", lambda: SimpleNamespace(model_info=unreachable))
    profile = load_profile(paper_files(project_folder, tmp_path))
    with pytest.raises(ConfigError, match=r"llama-3.1-8b.model.revision stays 'unpinned'.*HF_TOK"):
        pin.resolve(profile, ("backbones", "llama-3.1-8b", "model", "revision"))


def test_a_key_that_is_not_written_out_is_named(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump({"datasets": {"d": {"source": {"kind": "hub"}}}}))
    with pytest.raises(ConfigError, match=r"no file says `datasets.d.source.revision: unpinned`"):
        pin.write_value([file], ("datasets", "d", "source", "revision"), COMMIT)
