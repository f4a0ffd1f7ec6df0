"""Datasets: where the documents come from and how sessions are chained from them."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pydantic import AfterValidator, Field

from blockwise.config.base import UNPINNED, ConfigModel, PositiveTokens, modules_of
from blockwise.config.keys import address

FORMAT_PACKAGE = "blockwise.data.formats"
"""Where the formats are; named, not imported, because a configuration loads no code."""


def known_formats() -> list[str]:
    """Names of the official schemas that are read: the modules of their package."""
    return modules_of(FORMAT_PACKAGE)


def format_module(name: str) -> str:
    """The module of a format."""
    return f"{FORMAT_PACKAGE}.{name}"


def _known_format(value: str) -> str:
    if value not in known_formats():
        raise ValueError(f"{value!r} is unknown; choose of {known_formats()}")
    return value


FormatName = Annotated[str, AfterValidator(_known_format)]
"""The official schema of a dataset, by name."""


class MalformedRows(StrEnum):
    """What a row that does not match its schema does to the run."""

    REFUSE = "refuse"  # strict: the run ends and names file, row and key
    SKIP = "skip"  # the row is left out and counted in the tables


class Split(StrEnum):
    """What a synthetic text is for; no invented word stands in two of them."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class HubSource(ConfigModel):
    """A dataset of the Hugging Face hub, read with `datasets`."""

    kind: Literal["hub"]
    id: str
    subset: str | None = None
    split: str = "validation"
    revision: str = UNPINNED


def local_file(url: str) -> Path | None:
    """The file on this machine that a file:// URL names, or None for a file elsewhere."""
    parts = urlsplit(url)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None


class UrlSource(ConfigModel):
    """One official JSON file on the web."""

    kind: Literal["url"]
    url: Annotated[str, Field(pattern=r"^(https?|file)://"), AfterValidator(address)]
    sha256: str = Field(UNPINNED, pattern=r"^([0-9a-f]{64}|unpinned)$")


class PathSource(ConfigModel):
    """One official JSON file on this machine."""

    kind: Literal["path"]
    path: str


class SyntheticSource(ConfigModel):
    """Our seeded generator, writing the official schema: invented entities, no network."""

    kind: Literal["synthetic"]
    seed: int = 0
    split: Split = Field(
        Split.TEST, description="No name stands in two; pocket backbones are trained on `train`."
    )
    num_rows: int = Field(32, gt=0, description="HotpotQA rows, or LoCoMo conversations, to write.")
    sentences_per_paragraph: int = Field(
        5, gt=0, description="HotpotQA: length of each of the ten paragraphs."
    )
    chat_sessions_per_row: int = Field(8, gt=0, description="LoCoMo: dated chat sessions a row.")
    turns_per_chat_session: int = Field(16, gt=0, description="LoCoMo: lines a chat session.")


Source = Annotated[
    HubSource | UrlSource | PathSource | SyntheticSource, Field(discriminator="kind")
]


class SessionPlan(ConfigModel):
    """How documents are chained into agent sessions."""

    num_sessions: int = Field(gt=0)
    target_tokens: PositiveTokens = Field(
        description="A session takes documents until they hold this many tokens of the "
        "backbone's own tokenizer."
    )
    max_questions_per_document: int | None = Field(
        None,
        gt=0,
        description="Keep the first so many questions of a document (LoCoMo has several).",
    )


class Dataset(ConfigModel):
    """One dataset. Adding one is adding an entry."""

    format: FormatName = Field(
        description="Its official schema: a module of workflow/src/blockwise/data/formats."
    )
    source: Source
    row_ids: str | None = Field(
        None,
        description="A text file with the ids of the rows to take, one a line, in their order; "
        "others can then take the same. Default: all rows.",
    )
    sessions: SessionPlan
    malformed_rows: MalformedRows = MalformedRows.REFUSE
