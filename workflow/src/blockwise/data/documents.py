"""Documents, questions and sessions: what every dataset becomes before an agent plays it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Base of the data artifacts: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Question(Frozen):
    """One question about a document, with its gold answer."""

    id: str
    text: str  # as it is asked; names its conversation where several are chained
    answer: str  # gold; category 5 of LoCoMo: "no information available"
    category: str  # in the words of its format; HotpotQA: bridge | comparison; LoCoMo: "1" to "5"
    evidence: tuple[str, ...]  # ids of documents that hold the evidence, in order


class Document(Frozen):
    """What arrives in one user turn: a HotpotQA context or one chat session."""

    id: str
    cluster: str  # the unit of clustering: conversation (LoCoMo, LongMemEval), HotpotQA row
    text: str
    questions: tuple[Question, ...]


class DocumentSet(Frozen):
    """A prepared dataset: every document in the order in which sessions chain them."""

    schema_version: Literal[1] = 1
    dataset: str
    format: str
    origin: str  # where it came from, in words (path, url, hub id and revision, generator)
    content_digest: str  # of the documents
    num_rows: int
    num_skipped_rows: int
    skipped: tuple[str, ...]  # file, row and key of each skipped row
    documents: tuple[Document, ...]


class Session(Frozen):
    """A chain of documents that one agent plays from first to last."""

    id: str
    documents: tuple[Document, ...]
    num_tokens: int  # document and question text, in the backbone's tokens


class SessionSet(Frozen):
    """The sessions of one dataset for one backbone."""

    schema_version: Literal[1] = 1
    dataset: str
    format: str
    backbone: str
    content_digest: str
    num_skipped_rows: int
    sessions: tuple[Session, ...]
