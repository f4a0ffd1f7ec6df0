"""Whether a model can do the task at all: what it knows of a text, above what it knows without.

A score of recall says nothing of compaction where the model answers no better from the full
history than from the question alone. So each row of recall carries its difference to closed book,
and no verdict rests on it before full history, and one of the arms compared, stand above that
(METHOD, Gates). The official F1 decides, on the same questions.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from blockwise.compaction.records import AnswerContext
from blockwise.config.arms import Reference
from blockwise.config.choices import Protocol
from blockwise.tables.compaction.parts.load import distinct_cells
from blockwise.tables.compaction.parts.recall import (
    F1,
    Asked,
    Difference,
    answers_on,
    asked_in,
    groups_of_categories,
)
from blockwise.tables.inputs import LoadedCell

F1_MINUS_CLOSED_BOOK = Difference(
    "f1_minus_closed_book",
    "Official F1 less that of the questions alone, question by question; what decides whether the "
    "task can be done; empty without such answers",
    F1,
)

TaskKey = tuple[str, str, str]
"""Backbone, dataset and categories: what can be done or not."""


@dataclass(frozen=True)
class Standing:
    """What one backbone knows of one dataset's texts, in one group of categories."""

    closed_book: Sequence[Asked]
    can_do: bool
    """Whether full history stands above closed book.

    Where the window holds no full history, an arm that stands above says as much: what it knows,
    it knows from the text.
    """

    @classmethod
    def of(cls, cells: Sequence[LoadedCell], categories: str) -> "Standing":
        """The standing that these cells show, each given once."""
        closed_book = _reference(cells, AnswerContext.CLOSED_BOOK, categories)
        full_history = _reference(cells, AnswerContext.FULL_HISTORY, categories)
        if full_history:
            return cls(closed_book, is_above(full_history, closed_book))
        arms: dict[tuple[str, int | None, str, int | None], list[LoadedCell]] = {}
        for cell in cells:
            record = cell.record
            tau_tokens = record.spec.tau_tokens
            key = (record.arm, record.block_size_tokens, cell.prompt, tau_tokens)
            arms.setdefault(key, []).append(cell)
        compacted = (answers_on(own, AnswerContext.COMPACTED, categories) for own in arms.values())
        return cls(closed_book, any(is_above(own, closed_book) for own in compacted))

    def is_shown(self, compared: Iterable[Sequence[Asked]]) -> bool:
        """Whether the task can be done, and one of the arms that are compared does it in part."""
        return self.can_do and any(is_above(own, self.closed_book) for own in compared)


NOTHING_PLAYED = Standing((), can_do=False)


def standings_of(cells: Iterable[LoadedCell]) -> Mapping[TaskKey, Standing]:
    """The standing of every backbone, dataset and group of categories with recall cells."""
    played: dict[tuple[str, str], list[LoadedCell]] = {}
    for cell in distinct_cells(cells):
        if cell.record.protocol is Protocol.DEFERRED:
            played.setdefault((cell.backbone, cell.dataset), []).append(cell)
    return {
        (*place, categories): Standing.of(own, categories)
        for place, own in played.items()
        for categories in groups_of_categories(own)
    }


def is_above(own: Sequence[Asked], closed_book: Sequence[Asked]) -> bool:
    """Whether the whole interval of the difference to closed book is above zero."""
    low = F1_MINUS_CLOSED_BOOK.values(own, closed_book)[f"{F1_MINUS_CLOSED_BOOK.name}_low"]
    return low is not None and low > 0


def _reference(cells: Iterable[LoadedCell], context: AnswerContext, categories: str) -> list[Asked]:
    played = [cell for cell in cells if cell.record.arm in set(Reference)]
    asked = {one.question for cell in played for one in asked_in(cell)}
    return answers_on(played, context, categories, asked)
