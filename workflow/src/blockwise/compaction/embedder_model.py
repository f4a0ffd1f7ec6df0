"""A published embedder: fetched once for all batches of a profile, so that all use the same.

A profile may compare by TF-IDF where no place has the model. That is settled here, by one job, and
not batch by batch: cosines of two embedders are never comparable.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from blockwise.artifacts import digest, digest_file, read_model, write_model
from blockwise.config.embedder import FilesEmbedder
from blockwise.config.profile import Profile
from blockwise.errors import ArtifactError, ServerError, run_command
from blockwise.models.model_files import PublishedFile, find, find_or_fetch
from blockwise.models.prepared_model import SHORT_DIGEST_CHARS

COMPANIONS = ("*.json", "*.txt")
"""Settings, pooling and tokenizer of a sentence-transformers model."""


class FetchedEmbedder(BaseModel):
    """Where the embedder's files came from, or why TF-IDF is used instead."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    name: str
    sha256: str
    origin: str | None  # in words; None: absent
    absent: str | None  # why, in words


def fetch_embedder(embedder: FilesEmbedder, report: Callable[[str], None]) -> FetchedEmbedder:
    """Find or fetch the model.

    Raises:
        ArtifactError: the models folder holds another file of that name, or cannot be written.
        ServerError: no place has the model, and the profile has no other embedder for that case.
    """
    try:
        found = find_or_fetch(_published(embedder), report)
    except ServerError as error:
        if embedder.otherwise == "refuse":
            raise
        report(f"{error}\nSummaries are compared by TF-IDF instead")
        return FetchedEmbedder(
            name=embedder.name, sha256=embedder.sha256, origin=None, absent=str(error)
        )
    return FetchedEmbedder(
        name=embedder.name, sha256=embedder.sha256, origin=found.origin, absent=None
    )


def embedder_folder(embedder: FilesEmbedder) -> tuple[Path, str]:
    """The folder of a fetched embedder, and its name, digest and settings in words.

    Raises:
        ArtifactError: it is gone, or another one.
    """
    found = find(_published(embedder))
    if found is None:
        raise ArtifactError(
            f"embedder: {embedder.name} was fetched and is gone from the models folder; delete the "
            "record of the fetched embedder and run the same command again"
        )
    folder = found.path.parent
    settings = {
        path.relative_to(folder).as_posix(): digest_file(path)
        for pattern in COMPANIONS
        for path in sorted(folder.rglob(pattern))
    }
    return folder, (
        f"{embedder.name}, sha256 {embedder.sha256[:SHORT_DIGEST_CHARS]} "
        f"(settings {digest(settings)[:SHORT_DIGEST_CHARS]})"
    )


def _published(embedder: FilesEmbedder) -> PublishedFile:
    return PublishedFile(
        wanted_by="embedder",
        file=f"{embedder.name}/{embedder.file}",
        sha256=embedder.sha256,
        package=embedder.package,
        hub=embedder.hub,
        hub_file=embedder.file,
        companions=COMPANIONS,
    )


def main() -> None:
    """Command line: fetch the embedder of a profile."""
    parser = argparse.ArgumentParser(description="Fetch a profile's published embedder.")
    parser.add_argument("--config", type=Path, required=True, help="resolved profile, JSON")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    embedder = read_model(arguments.config, Profile).embedder
    assert isinstance(embedder, FilesEmbedder)
    fetched = fetch_embedder(embedder, lambda line: print(line, file=sys.stderr, flush=True))
    write_model(arguments.output, fetched)


if __name__ == "__main__":
    run_command(main)
