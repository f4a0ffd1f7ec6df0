"""What the judge leaves behind: a verdict for every answer, and how far it can be trusted.

A verdict is kept under a key that holds everything that can change it: which judge, the text of
its prompt, and what it was shown. The artifact of a batch also says what share of answers that
are known to be wrong the same judge accepts, because a judged accuracy means nothing without it.
"""

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Literal, NamedTuple

from blockwise.artifacts import digest, inside, read_sealed
from blockwise.compaction.records import AnswerContext, Batch, CellRecord, Record
from blockwise.config.choices import Study

SCHEMA_VERSION: Literal[1] = 1
RECALL_STUDIES = frozenset({Study.ACCURACY_VOLUME, Study.BLOCK_PROMPTS})
"""Studies whose cells ask after a closing compaction; no other answer measures recall."""


class Verdict(StrEnum):
    """What a reply of the judge says."""

    CORRECT = "CORRECT"
    WRONG = "WRONG"
    UNREADABLE = "UNREADABLE"  # neither word alone: counts for nothing, and is counted


class Item(NamedTuple):
    """What the judge is shown."""

    question: str
    gold: str
    answer: str


class JudgeIdentity(Record):
    """Everything about the judge that can change a verdict; no address and no key."""

    served_model: str
    version: str  # what runs there, in words
    prompt: str  # text of the prompt, placeholders included
    max_reply_tokens: int

    def key(self, item: Item) -> str:
        """Content key of this judge's verdict on one item."""
        return digest([self.model_dump(mode="json"), item])


class VerdictRecord(Record):
    """One verdict with what it was given on."""

    schema_version: Literal[1] = SCHEMA_VERSION
    key: str
    question: str
    gold: str
    answer: str
    verdict: Verdict
    reply: str  # as it came

    @property
    def item(self) -> Item:
        """What the judge was shown."""
        return Item(self.question, self.gold, self.answer)


class JudgeErrors(Record):
    """How the judge does on a built-in set whose right verdicts are known.

    Shares are of the readable verdicts; None where there is none.
    """

    num_questions: int
    num_unreadable: int  # of all kinds of answer
    false_accept_frac: float | None  # wrong and vague answers that it accepts
    false_accept_wrong_frac: float | None
    false_accept_vague_frac: float | None
    false_reject_frac: float | None  # right answers that it refuses


class Judgements(Record):
    """The verdicts on one batch: what the tables read."""

    schema_version: Literal[1] = SCHEMA_VERSION
    backbone: str
    dataset: str
    judge: JudgeIdentity | None
    omitted_reason: str | None  # why there are no verdicts; None: there are
    errors: JudgeErrors | None  # None: no judge was asked
    verdicts: tuple[VerdictRecord, ...]  # by key


def recall_items(batch: Batch, store_folder: Path) -> list[Item]:
    """Every distinct question, gold and answer of a batch's recall cells, in text order.

    Raises:
        ArtifactError: a record is missing or damaged.
    """
    paths = {cell.record_path for cell in batch.selected if cell.study in RECALL_STUDIES}
    records = (read_sealed(inside(store_folder, path), CellRecord) for path in paths)
    return sorted(set(_items(records)))


def _items(records: Iterable[CellRecord]) -> Iterable[Item]:
    for record in records:
        for answer in record.answers:
            if answer.context is not AnswerContext.RUNNING:
                yield Item(answer.question, answer.gold, answer.answer)
