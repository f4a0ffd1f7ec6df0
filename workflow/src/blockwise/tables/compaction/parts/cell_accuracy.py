"""The accuracy of one cell: what it answered, and what the scores of that mean.

Accuracy of an immediate session is no measure of recall: its questions are asked before the
history that answers them is compacted, and the column says so. It is that of the headline:
LoCoMo's open-domain and adversarial questions enter no mean. A deferred cell may ask twice;
answers on the last tokens instead of the summaries have columns of their own.
"""

from collections.abc import Sequence
from typing import Any

from blockwise.compaction.records import AnswerContext, AnswerRecord
from blockwise.tables.columns import Column, ColumnKind, count, number, text
from blockwise.tables.compaction.parts import measures
from blockwise.tables.compaction.parts.categories import HEADLINE, categories_of
from blockwise.tables.inputs import LoadedCell

ACCURACY_KINDS = {
    AnswerContext.RUNNING: "immediate (not a recall measure)",
    AnswerContext.COMPACTED: "deferred recall",
    AnswerContext.CLOSED_BOOK: "closed book",
    AnswerContext.FULL_HISTORY: "full history",
    AnswerContext.STRATEGY: "recall under a strategy, after each compaction that was asked about",
}

COLUMNS: tuple[Column, ...] = (
    count("num_answers", "Questions answered; those on the last tokens apart."),
    count(
        "num_headline_answers",
        "Those of them that the accuracy columns are over (HotpotQA: all; LoCoMo: categories 1, "
        "2 and 4).",
    ),
    text("accuracy_kind", "What the accuracy columns measure; empty: nothing was asked."),
    number(
        "exact_match_mean",
        "Mean exact match over the headline answers that have one by the official rules.",
        ColumnKind.SAMPLED,
        "1",
    ),
    count("num_exact_match", "Headline answers that have an exact match score."),
    number("f1_mean", "Mean official F1 over the headline answers.", ColumnKind.SAMPLED, "1"),
    number(
        "contains_gold_mean",
        "Share of the headline answers that contain the normalised gold.",
        ColumnKind.SAMPLED,
        "1",
    ),
    count(
        "num_answers_evidence_compacted",
        "Answers whose evidence had been compacted once or more.",
        ColumnKind.SAMPLED,
    ),
    count("num_truncation_answers", "Headline questions answered on the last tokens instead."),
    number(
        "truncation_exact_match_mean",
        "Mean exact match over those of them that have one.",
        ColumnKind.SAMPLED,
        "1",
    ),
    number("truncation_f1_mean", "Mean official F1 over them.", ColumnKind.SAMPLED, "1"),
    number(
        "truncation_contains_gold_mean",
        "Share of them that contain the normalised gold.",
        ColumnKind.SAMPLED,
        "1",
    ),
)


def values(cell: LoadedCell) -> dict[str, Any]:
    """Values of `COLUMNS`."""
    truncated = AnswerContext.TRUNCATION
    asked = [answer for answer in cell.record.answers if answer.context is not truncated]
    headline = [
        answer
        for answer in cell.record.answers
        if categories_of(cell.format, answer.category) == HEADLINE
    ]
    main = [answer for answer in headline if answer.context is not truncated]
    tail = [answer for answer in headline if answer.context is truncated]
    return {
        "num_answers": len(asked),
        "num_headline_answers": len(main),
        "accuracy_kind": ACCURACY_KINDS[asked[0].context] if asked else None,
        "exact_match_mean": measures.mean_of(_matches(main)),
        "num_exact_match": len(_matches(main)),
        "f1_mean": measures.mean_of(answer.f1 for answer in main),
        "contains_gold_mean": measures.mean_of(answer.contains_gold for answer in main),
        "num_answers_evidence_compacted": sum(
            answer.num_evidence_compactions > 0 for answer in asked
        ),
        "num_truncation_answers": len(tail),
        "truncation_exact_match_mean": measures.mean_of(_matches(tail)),
        "truncation_f1_mean": measures.mean_of(answer.f1 for answer in tail),
        "truncation_contains_gold_mean": measures.mean_of(answer.contains_gold for answer in tail),
    }


def _matches(answers: Sequence[AnswerRecord]) -> list[float]:
    """Exact match of the answers that have one by the official rules."""
    return [answer.exact_match for answer in answers if answer.exact_match is not None]
