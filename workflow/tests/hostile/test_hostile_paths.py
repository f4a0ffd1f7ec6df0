"""Names from configurations, data and artifacts: none of them leads out of the run's folders."""

import json
import os
from pathlib import Path

import pytest
from hostile_values import REPEATABLE, WORDS, words
from hypothesis import given, settings

from blockwise import download
from blockwise.artifacts import inside, write_bytes, write_json
from blockwise.compaction.sessions import build_sessions
from blockwise.compaction.store import CellStore
from blockwise.config.datasets import SessionPlan
from blockwise.data.documents import Document, DocumentSet
from blockwise.errors import ArtifactError, DatasetError
from blockwise.run.manifest import write_manifest
from blockwise.run.verify import verify
from record_factory import engine_card


@settings(max_examples=200, **REPEATABLE)
@given(words)
def test_a_name_of_an_artifact_stays_in_its_folder(name):
    folder = Path("/results/cells")
    try:
        path = inside(folder, name)
    except ArtifactError:
        return
    assert Path(os.path.normpath(path)).is_relative_to(folder)
    assert os.path.normpath(path) != str(folder)


@settings(max_examples=200, **REPEATABLE)
@given(words.filter(lambda word: "\ud800" not in word))  # which no configuration may hold
def test_a_cached_download_has_a_plain_name_in_the_cache(name):
    path = Path("/cache", download._cached_name(f"https://host/{name}"))
    assert path.parent == Path("/cache")
    assert len(path.name) <= 150
    assert path.name.isascii()
    assert path.name.isprintable()


@pytest.mark.parametrize("word", [word for word in WORDS if not {"\0", "\ud800"} & {*word}])
def test_a_download_of_any_name_lands_in_the_cache_or_is_refused(tmp_path, word):
    cache, source = tmp_path / "results" / "cache", tmp_path / "source"
    source.mkdir()
    before = sorted(tmp_path.rglob("*"))
    try:
        download.fetch(f"file://{source}/{word}", cache)
    except DatasetError as error:
        str(error).encode(errors="backslashreplace")
    assert [path for path in sorted(tmp_path.rglob("*")) if "results" not in path.parts] == before


def test_session_ids_are_names_of_the_dataset_whatever_its_documents_are_called(tmp_path):
    documents = tuple(
        Document(id=f"{word}{n}", cluster=word, text="text", questions=())
        for n, word in enumerate(WORDS)
        if word != "\ud800"
    )
    prepared = DocumentSet(
        dataset="d", format="hotpotqa", origin="o", content_digest="c", num_rows=1,
        num_skipped_rows=0, skipped=(), documents=documents,
    )  # fmt: skip
    plan = SessionPlan(num_sessions=3, target_tokens=5)
    sessions = build_sessions(prepared, plan, len, "b", 10**6)
    assert [session.id for session in sessions.sessions] == ["d-000", "d-001", "d-002"]


@pytest.mark.parametrize("card_id", ["../../escaped", "/tmp/escaped", "a\0b", "a\nb"])
def test_a_record_cannot_move_files_by_the_engine_card_that_it_names(tmp_path, card_id):
    """A damaged card is set aside under its own name: not one outside of the store."""
    victim = tmp_path / "escaped.json"
    victim.write_text("no card")
    store = CellStore(tmp_path / "results" / "cells", print)
    with pytest.raises(ArtifactError, match="is no name of a file below"):
        store.load_engine_card(card_id)
    with pytest.raises(ArtifactError, match="is no name of a file below"):
        store.save_engine_card(engine_card(id=card_id))
    assert [path.name for path in tmp_path.iterdir()] == ["escaped.json"]


@pytest.mark.parametrize("name", ["../victim", "/absolute", "results/../../victim"])
def test_repairing_deletes_nothing_that_is_not_the_projects(tmp_path, monkeypatch, name):
    project = tmp_path / "project"
    (project / "results/default").mkdir(parents=True)
    monkeypatch.chdir(project)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    manifest = Path("results/default/MANIFEST.json")
    write_manifest(manifest, [])
    content = {**_read(manifest), "files": {str(victim) if name == "/absolute" else name: "0" * 64}}
    write_json(manifest, content)
    with pytest.raises(ArtifactError, match="is no name of a file below"):
        verify(Path("results/default"), repair=True)
    assert victim.read_text() == "precious"


def _read(path):
    return json.loads(path.read_text())


def test_a_link_in_the_place_of_an_artifact_is_replaced_and_not_followed(tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "results" / "table.csv"
    victim.write_text("precious")
    path.parent.mkdir()
    path.symlink_to(victim)
    write_bytes(path, b"table")
    assert (victim.read_text(), path.read_bytes(), path.is_symlink()) == (
        "precious",
        b"table",
        False,
    )
