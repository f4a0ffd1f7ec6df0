"""`compaction_accuracy_volume.csv`: what is still known after compaction, against its volume.

The form of the paper's Figure 4. A row is one context in which the questions were asked: the
history that an arm compacted, the last tokens in its stead (truncation), nothing (closed book)
or everything (full history). Contexts are scored on the same questions: those whose evidence
the arm, or for the arm-free references some arm of the experiment, had compacted. LoCoMo's
open-domain and adversarial questions have rows of their own. A judge's verdicts stand beside the
official scores, with how often that judge accepts what is wrong.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pandas as pd

from blockwise.compaction.judgements import Item, Judgements, Verdict
from blockwise.compaction.records import AnswerContext, CellRecord
from blockwise.config.arms import SEQUENTIAL, Reference
from blockwise.config.backbones import Weights
from blockwise.config.choices import Study
from blockwise.tables.columns import Column, ColumnKind, count, frame, number, text
from blockwise.tables.compaction.parts import identity, natural_volume
from blockwise.tables.compaction.parts.categories import CATEGORIES
from blockwise.tables.compaction.parts.gates import GATE, Gate, gate_of
from blockwise.tables.compaction.parts.natural_volume import same_blocks
from blockwise.tables.compaction.parts.recall import (
    F1,
    LABELS,
    LAST_TOKENS,
    NOISE,
    OUTPUT,
    RANGE,
    SCORES,
    THINKING,
    Asked,
    Difference,
    Label,
    QuestionId,
    Score,
    answers_on,
    asked_in,
    counted_questions,
    groups_of_categories,
    label_values,
)
from blockwise.tables.compaction.parts.standing import (
    F1_MINUS_CLOSED_BOOK,
    NOTHING_PLAYED,
    Standing,
    standings_of,
)
from blockwise.tables.compaction.parts.summaries import Measure
from blockwise.tables.inputs import LoadedCell, LoadedOmission, TableInputs

INCOMPLETE = "fewer sessions than the other contexts: see omitted_reason"


def _closing_tokens(record: CellRecord) -> float | None:
    return next((one.history_after_tokens for one in record.compactions if one.closing), None)


CONTEXT = Measure(
    "context",
    "_tokens",
    "tokens",
    ColumnKind.SAMPLED,
    "Tokens of the history after the closing compaction; a truncated context holds as many at "
    "most; empty for the references",
    _closing_tokens,
    statistics=RANGE,
)
F1_MINUS_TRUNCATION = Difference(
    "f1_minus_truncation",
    "Official F1 on the compacted history less that on the last tokens, question by question; "
    "empty for other contexts",
    F1,
)
MEASURES = (OUTPUT, THINKING, CONTEXT)
JUDGED = Score(
    "judged_accuracy",
    "Share of answers that the judge calls right, of those with a readable verdict",
    lambda _: None,  # a verdict stands in no record: replaced where there is a judge
)

COLUMNS: tuple[Column, ...] = (
    *LABELS,
    CATEGORIES,
    text("prompt", "Name of the compaction prompt; empty for the references."),
    identity.TAU,
    *identity.ARM,
    text(
        "answer_context",
        "compacted: on the history that the arm compacted; truncation: on the last tokens, as many "
        "as that holds (the row repeats the arm's volume, which it does not need); closed_book: on "
        "nothing; full_history: on everything.",
    ),
    text("note", "Why the numbers of the row say nothing, or less; empty: they count."),
    GATE,
    count("num_omitted_sessions", "Sessions whose cells could not be played."),
    text("omitted_reason", "Why not; of several sessions, the first."),
    count("num_cells", "Cells behind the row.", ColumnKind.HOST),
    count("num_answers", "Answers that count.", ColumnKind.SAMPLED),
    count(
        "num_uncounted_answers",
        "Answers left out: to questions whose evidence was not compacted before they were asked.",
        ColumnKind.SAMPLED,
    ),
    *(column for measure in MEASURES for column in measure.columns()),
    *natural_volume.COLUMNS,
    *(column for score in SCORES for column in score.columns()),
    *(column for score in LAST_TOKENS for column in score.columns()),
    *F1_MINUS_TRUNCATION.columns(),
    *F1_MINUS_CLOSED_BOOK.columns(),
    text("judge", "Model and version of the judge; empty: none was asked."),
    *JUDGED.columns(),
    count(
        "num_unjudged_answers",
        "Answers without a readable verdict; empty without a judge.",
        ColumnKind.SAMPLED,
    ),
    number(
        "judge_false_accept_frac",
        "Wrong and vague answers of a built-in set that this judge calls right.",
        ColumnKind.SAMPLED,
        "1",
    ),
    number(
        "judge_false_reject_frac",
        "Right answers of that set that this judge calls wrong.",
        ColumnKind.SAMPLED,
        "1",
    ),
)

ScopeKey = tuple[float, str, str, str]
ArmKey = tuple[bool, int, bool, str, int, str]

T = TypeVar("T")
K = TypeVar("K")


@dataclass(frozen=True)
class _Context:
    """What one row is made of."""

    context: AnswerContext
    cells: Sequence[LoadedCell]  # of one arm or reference
    omitted: Sequence[LoadedOmission]
    questions: set[QuestionId] | None  # None: those that each cell counts itself
    same_blocks_as: str | None  # another arm

    @property
    def comparison(self) -> tuple[str, int | None]:
        """Arms of one prompt and tau are compared with each other."""
        first = self.cells[0]
        return first.prompt, first.record.spec.tau_tokens

    def asked(self, categories: str) -> list[Asked]:
        """The answers that count."""
        return answers_on(self.cells, self.context, categories, self.questions)


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row a context, arm, prompt, tau and categories of an experiment, backbone and dataset."""
    cells = _grouped(
        (cell for cell in inputs.cells if cell.study is Study.ACCURACY_VOLUME), _scope_key
    )
    omitted = _grouped(
        (one for one in inputs.omitted if one.study is Study.ACCURACY_VOLUME), _scope_key
    )
    judged = {(one.backbone, one.dataset): one for one in inputs.judgements}
    standings = standings_of(inputs.cells)
    rows = []
    for scope in sorted(cells.keys() | omitted.keys()):
        _, backbone, dataset, _ = scope
        verdicts = judged.get((backbone, dataset))
        contexts = list(_contexts(cells.get(scope, []), omitted.get(scope, [])))
        for categories in groups_of_categories(cells.get(scope, [])):
            standing = standings.get((backbone, dataset, categories), NOTHING_PLAYED)
            shown = _shown_comparisons(contexts, standing, categories)
            rows += [_row(one, categories, standing, shown, verdicts) for one in contexts]
    return frame(rows, COLUMNS)


def _shown_comparisons(
    contexts: Sequence[_Context], standing: Standing, categories: str
) -> set[tuple[str, int | None]]:
    """Prompts and taus at which an arm shows that it can do the task."""
    arms = _grouped(
        (one for one in contexts if one.context is AnswerContext.COMPACTED and one.cells),
        lambda one: one.comparison,
    )
    return {
        comparison
        for comparison, own in arms.items()
        if standing.is_shown(one.asked(categories) for one in own)
    }


def _contexts(cells: Sequence[LoadedCell], omitted: Sequence[LoadedOmission]) -> Iterable[_Context]:
    """The contexts of one experiment, backbone and dataset; references come last."""
    arms, absent = _grouped(cells, _arm_key), _grouped(omitted, _omitted_key)
    counted = counted_questions(cells)
    keys = sorted(arms.keys() | absent.keys())
    twins = same_blocks([arms.get(key, []) for key in keys])
    for key, twin in zip(keys, twins, strict=True):
        own, left_out = arms.get(key, []), absent.get(key, [])
        is_reference, _, _, arm, *_ = key
        if is_reference:
            yield _Context(AnswerContext(arm), own, left_out, counted, None)
            continue
        yield _Context(AnswerContext.COMPACTED, own, left_out, None, twin)
        if any(cell.record.spec.asks_truncated for cell in own):
            yield _Context(AnswerContext.TRUNCATION, own, left_out, None, twin)


def _row(
    context: _Context,
    categories: str,
    standing: Standing,
    shown: set[tuple[str, int | None]],
    judged: Judgements | None,
) -> dict[str, Any]:
    cells = context.cells
    label: Label = cells[0] if cells else context.omitted[0]
    asked = context.asked(categories)
    num_asked = sum(
        one.answer.context is context.context and one.categories == categories
        for cell in cells
        for one in asked_in(cell)
    )
    truncated = []
    if context.context is AnswerContext.COMPACTED:
        truncated = answers_on(cells, AnswerContext.TRUNCATION, categories)
    is_floor = context.context is AnswerContext.CLOSED_BOOK
    shares = natural_volume.column_values([one.record for one in cells], context.same_blocks_as)
    return {
        **label_values(label),
        "categories": categories,
        **_arm_values(context),
        "gate": _gate(context, standing, shown, shares),
        "answer_context": context.context,
        "note": _note(context, label),
        "num_omitted_sessions": len({one.session_id for one in context.omitted}),
        "omitted_reason": context.omitted[0].reason if context.omitted else None,
        "num_cells": len(cells),
        "num_answers": len(asked),
        "num_uncounted_answers": num_asked - len(asked),
        **_merged(measure.values(cell.record for cell in cells) for measure in MEASURES),
        **shares,
        **_merged(score.values(asked) for score in SCORES),
        **_merged(score.values(truncated) for score in LAST_TOKENS),
        **F1_MINUS_TRUNCATION.values(asked, truncated),
        **F1_MINUS_CLOSED_BOOK.values(asked, [] if is_floor else standing.closed_book),
        **_judged(asked, judged),
    }


def _gate(
    context: _Context,
    standing: Standing,
    shown: set[tuple[str, int | None]],
    shares: Mapping[str, Any],
) -> Gate:
    """The gate of a row; a reference, and the last tokens, have no summaries to be gated."""
    is_compacted = context.context is AnswerContext.COMPACTED
    found = natural_volume.gates_of(shares) if is_compacted else set()
    can_do = context.comparison in shown if is_compacted and context.cells else standing.can_do
    return gate_of(found if can_do else found | {Gate.CANNOT_DO_TASK})


def _arm_values(context: _Context) -> dict[str, Any]:
    if not context.cells:
        arm = context.omitted[0].arm
        return {
            "prompt": None,
            "tau_tokens": None,
            "arm": arm,
            "layout": None if arm in {SEQUENTIAL, *Reference} else arm,
            "block_size_tokens": None,
        }
    cell = context.cells[0]
    return {
        "prompt": cell.prompt or None,
        "tau_tokens": cell.record.spec.tau_tokens,
        **identity.arm_values(cell),
    }


def _note(context: _Context, label: Label) -> str | None:
    notes = [NOISE] if label.weights is Weights.RANDOM else []
    if context.cells and context.omitted:
        notes.append(INCOMPLETE)
    return "; ".join(notes) or None


def _judged(asked: Sequence[Asked], judged: Judgements | None) -> dict[str, Any]:
    """The judge's columns; empty where no judge was asked."""
    if judged is None or judged.judge is None or judged.errors is None:
        return {
            "judge": None,
            **JUDGED.values([]),
            "num_unjudged_answers": None,
            "judge_false_accept_frac": None,
            "judge_false_reject_frac": None,
        }
    is_right = {
        one.item: one.verdict is Verdict.CORRECT
        for one in judged.verdicts
        if one.verdict is not Verdict.UNREADABLE
    }
    score = replace(JUDGED, of=lambda one: is_right.get(_item(one)))
    return {
        "judge": f"{judged.judge.served_model}, {judged.judge.version}",
        **score.values(asked),
        "num_unjudged_answers": sum(_item(one) not in is_right for one in asked),
        "judge_false_accept_frac": judged.errors.false_accept_frac,
        "judge_false_reject_frac": judged.errors.false_reject_frac,
    }


def _item(asked: Asked) -> Item:
    return Item(asked.answer.question, asked.answer.gold, asked.answer.answer)


def _scope_key(label: Label) -> ScopeKey:
    """Questions are compared inside one of these."""
    return label.num_parameters, label.backbone, label.dataset, label.experiment


def _arm_key(cell: LoadedCell) -> ArmKey:
    record = cell.record
    return (
        record.arm in set(Reference),
        record.spec.tau_tokens or 0,
        record.arm != SEQUENTIAL,
        record.arm,
        record.block_size_tokens or 0,
        cell.prompt,
    )


def _omitted_key(omission: LoadedOmission) -> ArmKey:
    """The key of the cells it belongs to where it is a reference, which has no settings."""
    arm = omission.arm
    return arm in set(Reference), 0, arm != SEQUENTIAL, arm, 0, ""


def _grouped(values: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = {}
    for value in values:
        groups.setdefault(key(value), []).append(value)
    return groups


def _merged(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: value for part in parts for name, value in part.items()}
