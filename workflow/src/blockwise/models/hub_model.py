"""Fetch a model of the Hugging Face hub before any job that holds a GPU needs it.

The snapshot of one commit goes into the hub's own cache, where servers find it without the
network. What is left behind is a record of every file with the digest of what was read back:
a download that is damaged, or a licence that nobody has accepted, shows here, where waiting
costs nothing.
"""

import re
from pathlib import Path
from typing import Literal, NoReturn

from pydantic import BaseModel, ConfigDict

from blockwise.artifacts import digest, digest_file
from blockwise.config.backbones import Backbone, HubModel
from blockwise.config.base import UNPINNED
from blockwise.errors import ArtifactError, ConfigError, ServerError

TOKENIZER_PATTERNS = ["*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken"]
"""What a tokenizer needs and nothing else: an external engine has the weights itself."""

SAME_WEIGHTS_PATTERNS = ["original/*", "metal/*"]
"""The same weights in formats that no engine here reads: Llama's and gpt-oss's repositories hold
them beside the safetensors, and they would double the download."""

SHA256_NAME = re.compile(r"[0-9a-f]{64}")  # the cache names a large file's blob by its sha256


class FetchedFile(BaseModel):
    """One file of a snapshot, as it was read back."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str  # below the snapshot's folder
    num_bytes: int
    sha256: str


class FetchedModel(BaseModel):
    """A snapshot in the hub's cache; `fetch_model` writes it, preparing a backbone reads it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    backbone: str
    id: str
    revision: str  # the commit
    is_tokenizer_only: bool
    folder: str  # of the snapshot
    files: list[FetchedFile]
    num_bytes: int
    digest: str  # of names and contents


def fetch_model(name: str, backbone: Backbone) -> FetchedModel:
    """Download a backbone's snapshot, or find it in the cache, and read it back.

    Args:
        name: the backbone's name.
        backbone: its configuration, whose model is the hub's.

    Raises:
        ConfigError: the revision is unpinned, or the hub has no such model or commit.
        ServerError: the hub refused or could not be reached.
        ArtifactError: a file in the cache is damaged.
    """
    source = backbone.model
    assert isinstance(source, HubModel), name
    if source.revision == UNPINNED:
        raise ConfigError(
            f"backbones.{name}.model.revision of {source.id} is {UNPINNED!r}: nobody has verified "
            "which commit is meant; run `make pin` where the hub can be reached"
        )
    is_tokenizer_only = backbone.engine.kind == "external"
    folder = _download(name, source, is_tokenizer_only=is_tokenizer_only)
    files = [_read_back(folder, path) for path in sorted(folder.rglob("*")) if path.is_file()]
    if not files:
        raise ArtifactError(
            f"the snapshot of {source.id} at {source.revision} in {folder} holds no file; mend "
            f"backbones.{name}.model, or delete the folder and run the same command again"
        )
    return FetchedModel(
        backbone=name,
        id=source.id,
        revision=source.revision,
        is_tokenizer_only=is_tokenizer_only,
        folder=str(folder),
        files=files,
        num_bytes=sum(file.num_bytes for file in files),
        digest=digest({file.path: file.sha256 for file in files}),
    )


def check_in_place(fetched: FetchedModel) -> None:
    """Refuse a snapshot that has lost a file since it was fetched; sizes only, contents were read.

    Raises:
        ArtifactError: a file is missing or has another size.
    """
    for file in fetched.files:
        path = Path(fetched.folder, file.path)
        found = path.stat().st_size if path.is_file() else None
        if found != file.num_bytes:
            raise ArtifactError(
                f"{path} of {fetched.id} has {found or 'no'} bytes, and {file.num_bytes} were "
                "fetched: the hub's cache was changed, or this machine has another one (HF_HOME). "
                "Delete the record of the fetched model and run the same command again"
            )


def _download(name: str, source: HubModel, *, is_tokenizer_only: bool) -> Path:
    # Imported here: the other sources of models need no hub client.
    import huggingface_hub  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    try:
        folder = huggingface_hub.snapshot_download(
            source.id,
            revision=source.revision,
            allow_patterns=TOKENIZER_PATTERNS if is_tokenizer_only else None,
            ignore_patterns=SAME_WEIGHTS_PATTERNS,
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        # OSError: no network, a full disk; ValueError: a malformed id
        _refuse(name, source, error)
    return Path(folder)


def _refuse(name: str, source: HubModel, error: Exception) -> NoReturn:
    """Say what the hub's error means and what to do."""
    from huggingface_hub import errors  # noqa: PLC0415

    words = str(error).strip().splitlines()
    what = f"cannot fetch {source.id} at {source.revision} for backbone {name}"
    match error:
        case errors.GatedRepoError():
            raise ServerError(
                f"{what}: it is gated. Accept its licence on the hub with your account, set "
                "HF_TOKEN to a token of that account, and run the same command again"
            ) from error
        case errors.RepositoryNotFoundError():
            raise ConfigError(
                f"{what}: the hub has no such model, or shows it to others only. Mend "
                f"backbones.{name}.model.id, or set HF_TOKEN to a token that may read it"
            ) from error
        case errors.RevisionNotFoundError():
            raise ConfigError(
                f"{what}: the hub has no such commit. Mend backbones.{name}.model.revision, or set "
                f"it to {UNPINNED} and run `make pin`"
            ) from error
        case errors.LocalEntryNotFoundError() | errors.OfflineModeIsEnabled():
            raise ServerError(
                f"{what}: the hub cannot be reached and its cache here is not complete. Run "
                "`snakemake --until fetch_model` where there is a network (and HF_HUB_OFFLINE is "
                "not set), with HF_HOME on a file system that the other jobs see"
            ) from error
    raise ServerError(
        f"{what}: {words[0] if words else repr(error)}. If the network or the disk failed, run the "
        "same command again: what is complete is kept. Gated models need HF_TOKEN"
    ) from error


def _read_back(folder: Path, path: Path) -> FetchedFile:
    """Digest a file's bytes, and hold them against the name of its blob where that is a digest."""
    sha256, blob = digest_file(path), path.resolve()
    if SHA256_NAME.fullmatch(blob.name) and blob.name != sha256:
        raise ArtifactError(
            f"{path} is damaged: its sha256 is {sha256} and the hub's is {blob.name}; delete "
            f"{blob} and run the same command again"
        )
    return FetchedFile(
        path=path.relative_to(folder).as_posix(), num_bytes=path.stat().st_size, sha256=sha256
    )
