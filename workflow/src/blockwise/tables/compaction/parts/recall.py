"""Recall: which answers count, and what their scores say about a context.

An answer on a compacted history measures recall only where its evidence had been compacted
once or more; every other context is scored on the same questions. A question is asked once in
each cell, so its score is averaged over seeds and repeats first. Then it counts in its cluster:
the conversation in LoCoMo, the session in HotpotQA, where a session's questions share one
summary. A difference of two contexts is formed question by question (METHOD, Recall and
Statistics).
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from blockwise.compaction.records import AnswerContext, AnswerRecord
from blockwise.data.dataset_format import load_format
from blockwise.proportions import (
    MIN_DIFFERING_CLUSTERS,
    NO_INTERVAL,
    share_difference_interval,
    share_interval,
)
from blockwise.statistics import CONFIDENCE, MIN_CLUSTERS, Interval
from blockwise.tables.columns import Column, ColumnKind, count, number
from blockwise.tables.compaction.parts import identity
from blockwise.tables.compaction.parts.categories import HEADLINE, categories_of
from blockwise.tables.compaction.parts.summaries import COMPACTION_OUTPUT, Measure
from blockwise.tables.inputs import LoadedCell, LoadedOmission

NOISE = "random weights: answers are noise, not testable at this scale"

STATISTIC_MEANINGS = {
    "mean": "mean over clusters (LoCoMo: conversation; HotpotQA: session), repeats averaged first",
    "low": f"lower end of its {CONFIDENCE:.0%} interval, empty below {MIN_CLUSTERS} clusters",
    "high": f"upper end of its {CONFIDENCE:.0%} interval, empty below {MIN_CLUSTERS} clusters",
    "min": "smallest cluster mean",
    "max": "largest cluster mean",
}

RANGE = ("mean", "min", "max")

LABELS: tuple[Column, ...] = (
    *identity.SCOPE,
    identity.FORMAT,
    identity.CAPTION,
)
"""Where the answers of a row come from; each table adds the arm."""
Label = LoadedCell | LoadedOmission

QuestionId = tuple[str, str]
"""Session and question: one question may be asked in two sessions, on two histories."""


@dataclass(frozen=True)
class Asked:
    """One question as one cell answered it."""

    question: QuestionId
    cluster: str
    categories: str  # `headline`, or the category that stands apart
    answer: AnswerRecord


@dataclass(frozen=True)
class Score:
    """A score of answers, from 0 to 1."""

    name: str
    meaning: str
    of: Callable[[Asked], float | None]  # None: the answer has no such score

    def columns(self) -> list[Column]:
        """The statistics, and the questions and clusters behind them."""
        return _columns(self.name, self.meaning, NO_INTERVAL)

    def values(self, asked: Iterable[Asked]) -> dict[str, Any]:
        """The columns over these answers."""
        return _values(self.name, _interval(self.by_question(asked), share_interval))

    def by_question(self, asked: Iterable[Asked]) -> dict[tuple[QuestionId, str], float]:
        """Mean score of each question with its cluster, seeds and repeats averaged."""
        scores: dict[tuple[QuestionId, str], list[float]] = {}
        for one in asked:
            value = self.of(one)
            if value is not None:
                scores.setdefault((one.question, one.cluster), []).append(value)
        return {question: math.fsum(group) / len(group) for question, group in scores.items()}


@dataclass(frozen=True)
class Difference:
    """A score on one context less the same score on another, question by question."""

    name: str
    meaning: str
    score: Score

    def columns(self) -> list[Column]:
        """The statistics, and the questions and clusters behind them."""
        too_few = f"fewer than {MIN_DIFFERING_CLUSTERS} of them differ at all"
        return _columns(self.name, self.meaning, too_few)

    def values(self, own: Iterable[Asked], other: Iterable[Asked]) -> dict[str, Any]:
        """The columns over the questions that both contexts answered."""
        above, below = self.score.by_question(own), self.score.by_question(other)
        shared = above.keys() & below.keys()
        differences = {key: above[key] - below[key] for key in shared}
        return _values(self.name, _interval(differences, share_difference_interval))


EXACT_MATCH = Score(
    "exact_match",
    "Official exact match; empty where the dataset's rules define none (LoCoMo)",
    lambda asked: asked.answer.exact_match,
)
F1 = Score("f1", "Official F1", lambda asked: asked.answer.f1)
CONTAINS_GOLD = Score(
    "contains_gold",
    "Share of answers that contain the normalised gold, or each part of a comma-separated one",
    lambda asked: asked.answer.contains_gold,
)
SCORES = (EXACT_MATCH, F1, CONTAINS_GOLD)
LAST_TOKENS = tuple(
    replace(
        score,
        name=f"truncation_{score.name}",
        meaning=f"{score.meaning}, on the last tokens instead, as many as the arm's history holds",
    )
    for score in (F1, CONTAINS_GOLD)
)
"""The floor beside an arm: what is known of the same questions from the end of the text."""
OUTPUT = replace(COMPACTION_OUTPUT, statistics=RANGE)
THINKING = Measure(
    "compaction_thinking",
    "_tokens",
    "tokens",
    ColumnKind.SAMPLED,
    "Thinking tokens among them",
    lambda record: sum(compaction.thinking_tokens for compaction in record.compactions),
    statistics=RANGE,
)


def label_values(label: Label) -> dict[str, Any]:
    """Values of `LABELS`."""
    return {column.name: getattr(label, column.name) for column in LABELS}


def answers_on(
    cells: Iterable[LoadedCell],
    context: AnswerContext,
    categories: str = HEADLINE,
    questions: Collection[QuestionId] | None = None,
) -> list[Asked]:
    """The answers of cells in one context.

    Args:
        cells: recall cells.
        context: what the questions were asked on.
        categories: the group of categories.
        questions: only these; by default, those that the cell itself counts: asked on its
            compacted history after their evidence had been compacted once or more.
    """
    found = []
    for cell in cells:
        wanted = counted_questions([cell]) if questions is None else questions
        found += [
            one
            for one in _asked(cell, context)
            if one.question in wanted and one.categories == categories
        ]
    return found


def counted_questions(cells: Iterable[LoadedCell]) -> set[QuestionId]:
    """Questions whose evidence some of these cells had compacted when they asked."""
    return {
        one.question
        for cell in cells
        for one in _asked(cell, AnswerContext.COMPACTED)
        if one.answer.num_evidence_compactions > 0
    }


def groups_of_categories(cells: Iterable[LoadedCell]) -> list[str]:
    """The headline, and then the categories of these cells that stand apart."""
    found = {one.categories for cell in cells for one in asked_in(cell)}
    return [HEADLINE, *sorted(found - {HEADLINE})]


def _columns(name: str, meaning: str, no_interval: str) -> list[Column]:
    sampled = ColumnKind.SAMPLED
    exceptions = dict.fromkeys(("low", "high"), f" and where {no_interval}")
    return [
        *(
            number(
                f"{name}_{statistic}",
                f"{meaning}: {words}{exceptions.get(statistic, '')}.",
                sampled,
                "1",
            )
            for statistic, words in STATISTIC_MEANINGS.items()
        ),
        count(f"{name}_num_questions", f"Questions behind the {name} columns.", sampled),
        count(f"{name}_num_clusters", f"Clusters behind the {name} columns.", sampled),
    ]


def _values(name: str, interval: Interval | None) -> dict[str, Any]:
    return {
        f"{name}_mean": interval.mean if interval else None,
        f"{name}_low": interval.low if interval else None,
        f"{name}_high": interval.high if interval else None,
        f"{name}_min": interval.minimum if interval else None,
        f"{name}_max": interval.maximum if interval else None,
        f"{name}_num_questions": interval.num_values if interval else 0,
        f"{name}_num_clusters": interval.num_clusters if interval else 0,
    }


def _interval(
    scores: Mapping[tuple[QuestionId, str], float],
    interval_of: Callable[[Sequence[float], Sequence[str]], Interval],
) -> Interval | None:
    if not scores:
        return None
    ordered = sorted(scores)  # the sum must not depend on the order of a set
    return interval_of([scores[key] for key in ordered], [cluster for _, cluster in ordered])


def asked_in(cell: LoadedCell) -> list[Asked]:
    """Every question as one cell answered it, in all contexts."""
    by_conversation = load_format(cell.format).has_conversations
    session_id = cell.record.session_id
    return [
        Asked(
            question=(session_id, answer.question_id),
            cluster=answer.cluster if by_conversation else session_id,
            categories=categories_of(cell.format, answer.category),
            answer=answer,
        )
        for answer in cell.record.answers
    ]


def _asked(cell: LoadedCell, context: AnswerContext) -> list[Asked]:
    return [one for one in asked_in(cell) if one.answer.context is context]
