"""Models of the hub: what is fetched and recorded, and what a refusal tells the user to do."""

import hashlib
from pathlib import Path

import huggingface_hub
import pytest
from httpx import Request, Response
from huggingface_hub import errors

from blockwise.artifacts import read_model, write_model
from blockwise.config.backbones import ExternalEngine, HubModel
from blockwise.errors import ArtifactError, ConfigError, ServerError
from blockwise.models.hub_model import FetchedModel, fetch_model
from blockwise.models.prepare import prepare_model
from serving_fixtures import tiny_backbone

COMMIT = "a" * 40
EXTERNAL = ExternalEngine(kind="external", url="http://h/v1", served_model="m", version="1")
WEIGHTS = b"weights"
RESPONSE = Response(401, request=Request("GET", "https://hub"))


def hub_backbone(**changes):
    source = HubModel(source="hub", id="some/model", revision=COMMIT)
    return tiny_backbone(**{"model": source, **changes})


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache as the hub's client lays it out, and the calls that were made."""
    snapshot, blobs = tmp_path / "snapshots" / COMMIT, tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (snapshot / "config.json").write_text("{}")
    blob = blobs / hashlib.sha256(WEIGHTS).hexdigest()
    blob.write_bytes(WEIGHTS)
    (snapshot / "model.safetensors").symlink_to(blob)
    calls = []

    def fetch(repo_id, **arguments):
        calls.append((repo_id, arguments))
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    fetch.calls, fetch.blob = calls, blob
    return fetch


@pytest.mark.parametrize("engine", [None, EXTERNAL])
def test_files_are_fetched_at_the_commit_and_recorded(hub, tmp_path, engine):
    backbone = hub_backbone(**({"engine": engine} if engine else {}))
    fetched = fetch_model("hub", backbone)
    assert [(file.path, file.num_bytes) for file in fetched.files] == [
        ("config.json", 2),
        ("model.safetensors", len(WEIGHTS)),
    ]
    assert fetched.num_bytes == 2 + len(WEIGHTS)
    record = tmp_path / "record.json"
    write_model(record, fetched)
    assert read_model(record, FetchedModel) == fetched
    ((repo_id, arguments),) = hub.calls
    assert (repo_id, arguments["revision"]) == ("some/model", COMMIT)
    assert (arguments["allow_patterns"] is not None) == (engine is not None)
    assert "original/*" in arguments["ignore_patterns"]


def test_a_backbone_is_prepared_from_the_record_without_the_hub(hub):
    backbone = hub_backbone()
    fetched = fetch_model("hub", backbone)
    prepared = prepare_model("hub", backbone, Path("unused"), fetched)
    assert prepared == prepare_model("hub", backbone, Path("unused"))
    assert len(hub.calls) == 2  # the second of them fetches by itself
    assert (prepared.path, prepared.revision) == ("some/model", COMMIT)
    assert (prepared.digest, prepared.tokenizer_path) == (f"some/model@{COMMIT}", fetched.folder)


def test_a_cache_that_lost_a_file_since_is_refused(hub):
    fetched = fetch_model("hub", hub_backbone())
    hub.blob.write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"has no bytes, and 7 were fetched.*HF_HOME"):
        prepare_model("hub", hub_backbone(), Path("unused"), fetched)


def test_a_damaged_download_is_refused_by_the_hub_s_own_digest(hub):
    hub.blob.write_bytes(b"Weights")
    with pytest.raises(ArtifactError, match=r"model.safetensors is damaged.*delete .*blobs"):
        fetch_model("hub", hub_backbone())


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (errors.GatedRepoError("x", response=RESPONSE), ServerError, "gated. Accept.*set HF_TOKEN"),
        (errors.RepositoryNotFoundError("x", response=RESPONSE), ConfigError, "model.id.*HF_TOKEN"),
        (errors.RevisionNotFoundError("x", response=RESPONSE), ConfigError, "no such commit.*pin"),
        (errors.LocalEntryNotFoundError("x"), ServerError, "until fetch_model.*network.*HF_HOME"),
        (OSError("disk full"), ServerError, "disk full. .*run the same command again"),
    ],
)
def test_a_refusal_says_what_to_do(monkeypatch, error, kind, message):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(kind, match=f"cannot fetch some/model at a+ for backbone hub: .*{message}"):
        fetch_model("hub", hub_backbone())


def test_an_unpinned_revision_is_refused():
    backbone = hub_backbone(model=HubModel(source="hub", id="some/model"))
    with pytest.raises(ConfigError, match="make pin"):
        fetch_model("hub", backbone)
