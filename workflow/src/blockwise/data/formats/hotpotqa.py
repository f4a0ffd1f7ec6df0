"""HotpotQA (distractor): one row is one document of ten paragraphs and one question.

Two of the paragraphs hold what the question needs, the other eight are there to
distract. Two forms of the same rows circulate: the official JSON pairs things up
(`context: [[title, [sentence, ...]], ...]`) and the Hugging Face export keeps columns
(`context: {title: [...], sentences: [[...], ...]}`, and `id` for `_id`). Both are read here;
columns are turned into pairs before anything else looks at the row. A few official rows have
fewer than ten paragraphs, and that is no error.

An answer is scored by exact match and F1 over words. There is no partial credit where either side
is a bare yes, no or noanswer.

Source: Yang et al. 2018 (HotpotQA); file schema and evaluation script of the official v1 release,
the rules of the script rewritten.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from blockwise.config.choices import ContentType
from blockwise.data.dataset_format import DatasetFormat, UsualDocuments
from blockwise.data.documents import Document, Question
from blockwise.data.rows import OfficialRow, parse_row
from blockwise.data.scoring import Score, contains_gold, normalize, word_f1

Text = Annotated[str, Field(min_length=1)]

COLUMNS = {"context": ("title", "sentences"), "supporting_facts": ("title", "sent_id")}
"""Keys that the hub export keeps as columns, and the two columns of each."""

CLOSED_ANSWERS = frozenset({"yes", "no", "noanswer"})
"""Answers that are right or wrong as a whole."""


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


def score_answer(answer: str, question: Question) -> Score:
    """Score one answer.

    EM compares the normalised texts, so two answers that normalise to nothing match exactly and
    still share no word: EM 1, F1 0, as in the official script.
    """
    gold = question.answer
    predicted, wanted = normalize(answer), normalize(gold)
    exact_match = float(predicted == wanted)
    is_closed = not CLOSED_ANSWERS.isdisjoint({predicted, wanted})
    f1 = exact_match if is_closed else word_f1(predicted.split(), wanted.split())
    return Score(exact_match, f1, contains_gold=float(contains_gold(answer, gold)))


FORMAT = DatasetFormat(
    id_keys=("_id", "id"),
    read_row=_read_row,
    content=ContentType.EVIDENCE,
    score=score_answer,
    # Source of the size: arXiv 2605.23296 (secondary reading).
    usual=UsualDocuments(document_tokens=1200, category="bridge"),
)
