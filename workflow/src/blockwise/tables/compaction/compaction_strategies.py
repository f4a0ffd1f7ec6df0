"""`compaction_strategies.csv`: what each strategy remembers, and what it costs, under one budget.

A row is one strategy after a number of compactions, on one set of questions: all of a session after
its last compaction, or those of its first part after so many, which tells whether knowledge fades.
Recall is of deferred cells; stall and requests of a compaction are of the same strategy's cells
against the clock, which another experiment of this study plays. References are asked the same
questions on nothing and on everything.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from blockwise.compaction.records import AnswerContext, CellRecord, CompactionRecord
from blockwise.config.backbones import Weights
from blockwise.config.choices import Study
from blockwise.statistics import MIN_CLUSTERS
from blockwise.tables.columns import (
    Column,
    ColumnKind,
    count,
    frame,
    seconds,
    text,
    tokens,
)
from blockwise.tables.compaction.parts import identity, measures, natural_volume
from blockwise.tables.compaction.parts.categories import CATEGORIES
from blockwise.tables.compaction.parts.gates import GATE, Gate, gate_column, gate_of
from blockwise.tables.compaction.parts.recall import (
    F1,
    LABELS,
    NOISE,
    RANGE,
    SCORES,
    Asked,
    Difference,
    QuestionId,
    answers_on,
    asked_in,
    groups_of_categories,
    label_values,
)
from blockwise.tables.compaction.parts.standing import (
    F1_MINUS_CLOSED_BOOK,
    NOTHING_PLAYED,
    Standing,
    standings_of,
)
from blockwise.tables.compaction.parts.summaries import Measure, start_of
from blockwise.tables.inputs import LoadedCell, TableInputs

ALL, FIRST_PART = "all", "first part"
TRUNCATE = "truncate"  # the floor that the others are held against
NO_RECALL = "no recall cell of this strategy"

F1_MINUS_TRUNCATE = Difference(
    "f1_minus_truncate",
    "Official F1 less that of the strategy truncate, question by question; empty for truncate and "
    "references",
    F1,
)


def _counted(name: str, suffix: str, unit: str, meaning: str) -> Measure:
    return Measure(name, suffix, unit, ColumnKind.SAMPLED, meaning, lambda _: None, RANGE)


KEPT = _counted("kept", "_tokens", "tokens", "Tokens of the history after these compactions")
OUTPUT = _counted(
    "compaction_output", "_tokens", "tokens", "Tokens decoded by these compactions, thinking too"
)
REQUESTS = _counted("num_requests", "", "count", "Requests of these compactions")


def _mean_of(of: str, record: CellRecord) -> float | None:
    return measures.mean_of(getattr(one, of) for one in record.compactions)


TIMES = (
    Measure(
        "stall",
        "_s",
        "s",
        ColumnKind.TIMED,
        "Wait of the agent for one compaction in sessions against the clock, mean over those of a "
        "session",
        lambda record: _mean_of("stall_s", record),
    ),
    Measure(
        "requests_a_compaction",
        "",
        "count",
        ColumnKind.SAMPLED,
        "Requests of one compaction in sessions against the clock, mean over those of a session",
        lambda record: (
            len(measures.workers(record)) / len(record.compactions) if record.compactions else None
        ),
        RANGE,
    ),
    Measure(
        "output_a_compaction",
        "_tokens",
        "tokens",
        ColumnKind.SAMPLED,
        "Tokens decoded by one compaction in sessions against the clock, mean over those of a "
        "session",
        lambda record: _mean_of("output_tokens", record),
        RANGE,
    ),
)

COLUMNS: tuple[Column, ...] = (
    *LABELS,
    CATEGORIES,
    text("prompt", "Name of the compaction prompt; empty for the references."),
    *identity.ARM,
    tokens("budget_tokens", "Most that a compacted history may hold; empty for the references."),
    count(
        "keep_identifiers",
        "At most so many identifiers that the strategy lost are added to what it kept; empty for "
        "the references.",
    ),
    text(
        "questions",
        "all: every question of a session, after its last compaction; first part: those of the "
        "documents that the first compaction went over, after num_compactions of them.",
    ),
    count(
        "num_compactions",
        "Compactions that had gone over the evidence when the questions of the first part were "
        "asked; for `all` those of the session; empty for the references.",
    ),
    text("note", "Why the numbers of the row say nothing, or less; empty: they count."),
    GATE,
    count("num_cells", "Recall cells behind the row.", ColumnKind.HOST),
    count("num_answers", "Answers behind the row.", ColumnKind.SAMPLED),
    *(column for measure in (KEPT, OUTPUT, REQUESTS) for column in measure.columns()),
    *natural_volume.SHARES,
    *(column for score in SCORES for column in score.columns()),
    *F1_MINUS_TRUNCATE.columns(),
    *F1_MINUS_CLOSED_BOOK.columns(),
    count(
        "num_timing_blocks", "Timing blocks with a valid cell of this strategy.", ColumnKind.HOST
    ),
    count("num_server_starts", "Server starts of these timing blocks.", ColumnKind.HOST),
    count("num_invalid_cells", "Cells whose times do not count, left out.", ColumnKind.HOST),
    *(column for measure in TIMES for column in measure.columns()),
    count("num_stalls", "Compactions behind the percentiles.", ColumnKind.HOST),
    *(
        seconds(f"stall_p{percent}_s", f"Wait for one compaction: percentile {percent} over all.")
        for percent in (50, 95)
    ),
    gate_column("stall_gate", "the times of the row", ColumnKind.HOST),
)

ArmKey = tuple[str, str, str, int, int, int]
"""Prompt, strategy, its layout, block size, identifiers, budget: an arm of one experiment."""
TaskKey = tuple[str, str]
Asking = tuple[str, int | None]
"""Which questions, and after how many compactions; None: none was."""


@dataclass(frozen=True)
class _Scope:
    """One experiment's recall cells of one backbone and dataset."""

    arms: Mapping[ArmKey, Sequence[LoadedCell]]
    references: Mapping[str, Sequence[LoadedCell]]

    @property
    def askings(self) -> list[Asking]:
        """The sets of questions, the whole session's first."""
        every = {
            number
            for cells in self.arms.values()
            for cell in cells
            for number in cell.record.spec.ask_after
        }
        first = [(FIRST_PART, number) for number in sorted(every)] if max(every) > 1 else []
        return [(ALL, max(every)), *first]

    def questions(self, kind: str) -> set[QuestionId]:
        """Questions of a kind, as any strategy was asked them."""
        cells = [cell for own in self.arms.values() for cell in own]
        return {
            one.question
            for cell in cells
            for one in _ended(cell)
            if kind == ALL or _is_first(one, cell.record)
        }


def build(inputs: TableInputs) -> pd.DataFrame:
    """A row a strategy and set of questions of an experiment, backbone, dataset and categories."""
    own = [cell for cell in inputs.cells if cell.study is Study.STRATEGIES]
    standings = standings_of(inputs.cells)
    timed: dict[tuple[TaskKey, ArmKey], list[LoadedCell]] = {}
    scopes: dict[tuple[float, str, str, str], list[LoadedCell]] = {}
    for cell in own:
        if cell.record.timing_block_id is not None:
            timed.setdefault((_task(cell), _arm_key(cell)), []).append(cell)
        else:
            key = (cell.num_parameters, cell.backbone, cell.dataset, cell.experiment)
            scopes.setdefault(key, []).append(cell)
    rows: list[dict[str, Any]] = []
    for key in sorted(scopes):
        cells = scopes[key]
        for categories in groups_of_categories(cells):
            standing = standings.get((*_task(cells[0]), categories), NOTHING_PLAYED)
            rows += _recalled(_scope_of(cells), categories, standing, timed)
    shown = {
        (_task(cell), _without_identifiers(_arm_key(cell)))
        for cells in scopes.values()
        for cell in cells
        if cell.record.spec.strategy is not None
    }
    alone = (cells for key, cells in sorted(timed.items()) if key not in shown)
    return frame([*rows, *(_timed_alone(cells) for cells in alone)], COLUMNS)


def _scope_of(cells: Iterable[LoadedCell]) -> _Scope:
    arms: dict[ArmKey, list[LoadedCell]] = {}
    references: dict[str, list[LoadedCell]] = {}
    for cell in cells:
        if cell.record.spec.strategy is None:
            references.setdefault(cell.record.arm, []).append(cell)
        else:
            arms.setdefault(_arm_key(cell), []).append(cell)
    return _Scope(dict(sorted(arms.items())), dict(sorted(references.items())))


def _recalled(
    scope: _Scope,
    categories: str,
    standing: Standing,
    timed: Mapping[tuple[TaskKey, ArmKey], Sequence[LoadedCell]],
) -> Iterator[dict[str, Any]]:
    for asking in scope.askings if scope.arms else []:
        kind, number = asking
        asked = {key: _asked(cells, kind, number, categories) for key, cells in scope.arms.items()}
        is_shown = standing.is_shown(asked.values())
        for key, cells in scope.arms.items():
            floor = next((other for other in asked if _is_floor_of(other, key)), None)
            beside = timed.get((_task(cells[0]), _without_identifiers(key)), [])
            shares = natural_volume.column_values([cell.record for cell in cells], None)
            gates = natural_volume.gates_of(shares)
            yield {
                **_labels(cells[0], categories, asking),
                "gate": gate_of(gates if is_shown else gates | {Gate.CANNOT_DO_TASK}),
                **_volumes(cells, number),
                **{column.name: shares[column.name] for column in natural_volume.SHARES},
                **_scores(asked[key], asked[floor] if floor else [], standing.closed_book),
                **_timed(beside),
                "num_cells": len(cells),
            }
        questions = scope.questions(kind)
        for arm, cells in scope.references.items():
            if asking not in scope.askings[:2]:
                continue  # without a compaction there is one row for each set of questions
            answers = answers_on(cells, AnswerContext(arm), categories, questions)
            floor_of = [] if arm == AnswerContext.CLOSED_BOOK else standing.closed_book
            yield {
                **_labels(cells[0], categories, (kind, None)),
                "gate": Gate.OK if standing.can_do else Gate.CANNOT_DO_TASK,
                **_volumes([], None),
                **dict.fromkeys((column.name for column in natural_volume.SHARES), None),
                **_scores(answers, [], floor_of),
                **_timed([]),
                "num_cells": len(cells),
            }


def _timed_alone(cells: Sequence[LoadedCell]) -> dict[str, Any]:
    """The row of a strategy that was only timed."""
    return {
        **_labels(cells[0], "headline", (ALL, None)),
        "note": NO_RECALL,
        "gate": Gate.CANNOT_DO_TASK,
        **_volumes([], None),
        **dict.fromkeys((column.name for column in natural_volume.SHARES), None),
        **_scores([], [], []),
        **_timed(cells),
        "num_cells": 0,
    }


def _labels(cell: LoadedCell, categories: str, asking: Asking) -> dict[str, Any]:
    spec = cell.record.spec
    is_reference = spec.strategy is None
    return {
        **label_values(cell),
        "categories": categories,
        "prompt": cell.prompt or None,
        **identity.arm_values(cell),
        "budget_tokens": spec.budget_tokens,
        "keep_identifiers": None if is_reference else spec.keep_identifiers,
        "questions": asking[0],
        "num_compactions": asking[1],
        "note": NOISE if cell.weights is Weights.RANDOM else None,
    }


def _volumes(cells: Sequence[LoadedCell], number: int | None) -> dict[str, Any]:
    """What these cells kept, wrote and asked in their first so many compactions."""
    records = [cell.record for cell in cells]

    def done(record: CellRecord) -> Sequence[CompactionRecord]:
        return record.compactions[:number]

    def requests(record: CellRecord) -> int:
        return sum(
            number is None or (one.compaction_index or 0) < number
            for one in measures.workers(record)
        )

    return {
        **replace(KEPT, of=lambda one: done(one)[-1].history_after_tokens).values(records),
        **replace(OUTPUT, of=lambda one: sum(each.output_tokens for each in done(one))).values(
            records
        ),
        **replace(REQUESTS, of=requests).values(records),
    }


def _scores(
    asked: Sequence[Asked], truncated: Sequence[Asked], closed_book: Sequence[Asked]
) -> dict[str, Any]:
    values: dict[str, Any] = {"num_answers": len(asked)}
    for score in SCORES:
        values |= score.values(asked)
    values |= F1_MINUS_TRUNCATE.values(asked, truncated)
    return values | F1_MINUS_CLOSED_BOOK.values(asked, closed_book)


def _timed(cells: Sequence[LoadedCell]) -> dict[str, Any]:
    """Columns of sessions against the clock."""
    valid = [cell.record for cell in cells if cell.record.timing_valid]
    stalls = [one.stall_s for record in valid for one in record.compactions]
    num_starts = len({start_of(record) for record in valid})
    values: dict[str, Any] = {
        "num_timing_blocks": len({record.timing_block_id for record in valid}),
        "num_server_starts": num_starts,
        "num_invalid_cells": len(cells) - len(valid),
        "num_stalls": len(stalls),
        "stall_p50_s": measures.percentile(stalls, 0.5),
        "stall_p95_s": measures.percentile(stalls, 0.95),
        "stall_gate": gate_of({Gate.TOO_FEW_STARTS} if num_starts < MIN_CLUSTERS else set()),
    }
    for measure in TIMES:
        values |= measure.values(valid)
    return values


def _asked(
    cells: Sequence[LoadedCell], kind: str, number: int | None, categories: str
) -> list[Asked]:
    """Answers of a kind of questions, after so many compactions."""
    found: list[Asked] = []
    for cell in cells:
        if kind == ALL:
            own = _ended(cell)
        else:
            first = {one.question for one in _ended(cell) if _is_first(one, cell.record)}
            own = [
                one
                for one in _strategy_answers(cell)
                if one.question in first and one.answer.num_evidence_compactions == number
            ]
        found += [one for one in own if one.categories == categories]
    return found


def _ended(cell: LoadedCell) -> list[Asked]:
    """Each question of a session as it was answered after the last compaction."""
    last: dict[QuestionId, Asked] = {}
    for one in _strategy_answers(cell):
        before = last.get(one.question)
        seen = -1 if before is None else before.answer.num_evidence_compactions
        if one.answer.num_evidence_compactions > seen:
            last[one.question] = one
    return list(last.values())


def _strategy_answers(cell: LoadedCell) -> list[Asked]:
    return [one for one in asked_in(cell) if one.answer.context is AnswerContext.STRATEGY]


def _is_first(one: Asked, record: CellRecord) -> bool:
    """Whether every compaction of the session has gone over the evidence of an ended question."""
    return one.answer.num_evidence_compactions == len(record.compactions)


def _task(cell: LoadedCell) -> TaskKey:
    return cell.backbone, cell.dataset


def _arm_key(cell: LoadedCell) -> ArmKey:
    spec = cell.record.spec
    return (
        cell.prompt,
        cell.record.arm,
        spec.layout,
        spec.block_size_tokens or 0,
        spec.keep_identifiers,
        spec.budget_tokens or 0,
    )


def _without_identifiers(key: ArmKey) -> ArmKey:
    """The arm that costs the same: identifiers are added without a request."""
    return (*key[:4], 0, key[5])


def _is_floor_of(other: ArmKey, own: ArmKey) -> bool:
    """Whether an arm is the last tokens beside another one, of the same prompt and budget."""
    is_same = (other[0], *other[4:]) == (own[0], *own[4:])
    return other[1] == TRUNCATE and own[1] != TRUNCATE and is_same
