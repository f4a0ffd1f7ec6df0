"""Where the text of the MXFP4 study comes from, and what makes it tokens."""

from typing import Annotated, Literal

from pydantic import Field

from blockwise.config.base import UNPINNED, ConfigModel


class StdlibCorpus(ConfigModel):
    """The sources of the running Python's standard library: they exist on every machine."""

    kind: Literal["stdlib"]


class DocstringCorpus(ConfigModel):
    """The English of docstrings: of the standard library, and of packages that the lock pins."""

    kind: Literal["docstrings"]
    distributions: list[str] = Field(
        min_length=1,
        description="Installed distributions, e.g. scipy; licences are recorded.",
    )
    validation_frac: float = Field(
        0.05, gt=0, lt=1, description="Files whose text validates and is never trained on."
    )


class StdlibDocsCorpus(ConfigModel):
    """The documentation of the running Python's standard library: English, on every machine."""

    kind: Literal["stdlib_docs"]


class PathCorpus(ConfigModel):
    """UTF-8 text files below a folder, split by file."""

    kind: Literal["path"]
    folder: str
    pattern: str = Field("**/*.txt", description="Glob below the folder.")


class HubCorpus(ConfigModel):
    """A text dataset of the Hugging Face hub, read as a stream."""

    kind: Literal["hub"]
    id: str = Field(description="Hub id, e.g. allenai/c4.")
    subset: str | None = None
    revision: str = Field(UNPINNED, description="Commit hash; `unpinned` may dry-run, not run.")
    train_files: list[str] = Field(description="Files of the training split, globs allowed.")
    validation_files: list[str]
    text_column: str = "text"
    max_train_tokens: int = Field(gt=0)
    max_validation_documents: int = Field(gt=0)


Corpus = Annotated[
    StdlibCorpus | StdlibDocsCorpus | DocstringCorpus | PathCorpus | HubCorpus,
    Field(discriminator="kind"),
]


class HubTokenizer(ConfigModel):
    """A tokenizer of the hub or of a folder."""

    kind: Literal["hub"]
    id: str = Field(description="Hub id or folder.")
    revision: str = Field(UNPINNED, description="Commit hash; ignored for a folder.")


class ByteTokenizer(ConfigModel):
    """UTF-8 bytes: 256 tokens, no file needed."""

    kind: Literal["bytes"]


class BpeTokenizer(ConfigModel):
    """Byte-level byte-pair encoding, learned from the corpus's own training text."""

    kind: Literal["bpe"]
    vocab_size: int = Field(ge=512, description="All 256 bytes and the end of a document included.")


Tokenizer = Annotated[ByteTokenizer | BpeTokenizer | HubTokenizer, Field(discriminator="kind")]
