"""What a format declares: all that the study must know of the datasets of one official schema.

A format is one module of `blockwise.data.formats` with one constant

    FORMAT = DatasetFormat(...)

and its name in the configuration is the module's. Adding one is adding a file; nothing else names
it. Synthetic rows are no part of a format, because a generator must not change the keys of cells:
which formats have a generator stands in `blockwise.data.sources`.
"""

import functools
import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from blockwise.config.choices import ContentType
from blockwise.config.datasets import MalformedRows, format_module, known_formats
from blockwise.data.documents import Document, Question
from blockwise.data.rows import read_documents
from blockwise.data.scoring import Score
from blockwise.errors import DatasetError


@dataclass(frozen=True)
class UsualDocuments:
    """What the documents of a format usually are, for an estimate before any download."""

    document_tokens: int
    category: str  # of a question: the commonest one
    num_questions: int = 1  # of a document that is asked about
    documents_per_asked: int = 1  # one of so many documents is asked about
    num_conversations: int | None = None  # None: the documents are no conversations


@dataclass(frozen=True)
class DatasetFormat:
    """One official schema: how it is read, what its documents are, how answers are scored."""

    id_keys: tuple[str, ...]
    """Keys that name a row: the official one, then those of other exports."""

    read_row: Callable[[Any], list[Document]]
    """One row, unchecked, to its documents in order; raises `MalformedRowError`."""

    content: ContentType
    """What the documents mostly hold; with `block_prompts` it chooses the compaction prompt."""

    score: Callable[[str, Question], Score]
    """Scores an answer to a question: by the official rules, and by whether it has the gold."""

    headline_categories: frozenset[str] | None = None
    """Categories of questions that only the text answers; None: all. Others stand apart."""

    has_conversations: bool = False
    """Whether the documents of a cluster are one conversation.

    Sessions then go round the conversations, each from another one on, and scores count by
    conversation. Otherwise sessions are cut from the documents one after another, and scores
    count by session.
    """

    usual: UsualDocuments | None = None
    """None: an estimate needs the documents themselves."""

    def read(
        self, rows: Iterable[Any], *, origin: str, malformed: MalformedRows
    ) -> tuple[list[Document], list[str]]:
        """Read the rows of a dataset.

        Args:
            rows: rows in file order, unchecked.
            origin: where they came from, in words.
            malformed: what a malformed row does to the run.

        Returns:
            The documents, in order, and a report for each skipped row.

        Raises:
            DatasetError: a malformed row under `refuse`, or no row at all.
        """
        return read_documents(
            rows, self.read_row, id_keys=self.id_keys, origin=origin, malformed=malformed
        )


@functools.cache
def load_format(name: str) -> DatasetFormat:
    """A format by the name of its module.

    Raises:
        DatasetError: there is none of this name.
    """
    if name not in known_formats():
        raise DatasetError(
            f"format {name!r} is unknown; there are: {', '.join(known_formats())}. Choose one, or "
            "add a module to workflow/src/blockwise/data/formats"
        )
    found: DatasetFormat = importlib.import_module(format_module(name)).FORMAT
    return found
