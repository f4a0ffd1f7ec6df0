"""HotpotQA (distractor): one row is one document of ten paragraphs and one question.

Two of the paragraphs hold what the question needs, the other eight are there to
distract. Two forms of the same rows circulate: the official JSON pairs things up
(`context: [[title, [sentence, ...]], ...]`) and the Hugging Face export keeps columns
(`context: {title: [...], sentences: [[...], ...]}`, and `id` for `_id`). Both are read here;
columns are turned into pairs before anything else looks at the row. A few official rows have
fewer than ten paragraphs, and that is no error.

Source: Yang et al. 2018 (HotpotQA); file schema of the official v1 release.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from blockwise.config.datasets import MalformedRows
from blockwise.data.documents import Document, Question
from blockwise.data.rows import OfficialRow, parse_row, read_documents

Text = Annotated[str, Field(min_length=1)]

COLUMNS = {"context": ("title", "sentences"), "supporting_facts": ("title", "sent_id")}
"""Keys that the hub export keeps as columns, and the two columns of each."""


class HotpotQARow(OfficialRow):
    """One official row; `level` and other surplus keys are not needed."""

    id: Text = Field(alias="_id")
    question: Text
    answer: Text
    type: Literal["bridge", "comparison"]
    supporting_facts: list[tuple[str, int]]
    context: Annotated[list[tuple[str, list[str]]], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _columns_become_pairs(cls, row: Any) -> Any:
        paired = dict(row)
        if "_id" not in paired and "id" in paired:
            paired["_id"] = paired["id"]
        for key, columns in COLUMNS.items():
            if key in paired:
                paired[key] = _pairs(paired[key], *columns)
        return paired


def _pairs(value: Any, first: str, second: str) -> Any:
    """Columns to pairs; anything else is left for the schema to judge.

    Columns of unequal length leave a pair with a None, which the schema then refuses.
    """
    if isinstance(value, Mapping) and {first, second} <= value.keys():
        left, right = value[first], value[second]
        if not (isinstance(left, list | tuple) and isinstance(right, list | tuple)):
            return value
        left, right = list(left), list(right)
        num_pairs = max(len(left), len(right))
        left += [None] * (num_pairs - len(left))
        right += [None] * (num_pairs - len(right))
        return list(zip(left, right, strict=True))
    if isinstance(value, list):
        return [tuple(pair) if isinstance(pair, list) else pair for pair in value]
    return value


def read_rows(
    rows: Iterable[Mapping[str, Any]], *, origin: str, malformed: MalformedRows
) -> tuple[list[Document], list[str]]:
    """Read official or hub rows.

    Returns:
        One document a row, in file order, and a report for each skipped row.

    Raises:
        DatasetError: a malformed row under `refuse`, or no row at all.
    """
    return read_documents(rows, _read_row, id_key="_id", origin=origin, malformed=malformed)


def _read_row(row: Any) -> list[Document]:
    parsed = parse_row(row, HotpotQARow)
    question = Question(
        id=parsed.id,
        text=parsed.question,
        answer=parsed.answer,
        category=parsed.type,
        evidence=(parsed.id,),
    )
    return [
        Document(
            id=parsed.id,
            cluster=parsed.id,
            text=join_paragraphs(render_paragraph(*paragraph) for paragraph in parsed.context),
            questions=(question,),
        )
    ]


def join_paragraphs(paragraphs: Iterable[str]) -> str:
    """The text of a document."""
    return "\n\n".join(paragraphs)


def render_paragraph(title: str, sentences: Iterable[str]) -> str:
    """A title line and its prose; official sentences carry their own leading space or none."""
    return title + "\n" + " ".join(text for text in map(str.strip, sentences) if text)
