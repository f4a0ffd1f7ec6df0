"""`compaction_block_prompts.csv`: a prompt for each content type against one prompt for all.

An arm is played twice on the same sessions: once each history block is summarised by the prompt
of its content type, once all by the same prompt. Recall is compared question by question. The
volume that each spends stands beside it, because more words remember more. LoCoMo's open-domain
and adversarial questions have rows of their own.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import pandas as pd

from blockwise.compaction.records import BY_CONTENT_TYPE, AnswerContext, CellRecord
from blockwise.config.arms import SEQUENTIAL, Reference
from blockwise.config.backbones import Weights
from blockwise.config.choices import ContentType, Study
from blockwise.tables.columns import Column, ColumnKind, count, frame, text
from blockwise.tables.compaction.parts import identity, measures, natural_volume
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
    answers_on,
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
from blockwise.tables.inputs import LoadedCell, TableInputs


def _output_over_input(record: CellRecord) -> float | None:
    input_tokens = sum(compaction.input_tokens for compaction in record.compactions)
    return measures.compaction_output_tokens(record) / input_tokens if input_tokens else None


OUTPUT_OVER_INPUT = Measure(
    "output_over_input",
    "_frac",
    "1",
    ColumnKind.SAMPLED,
    "Tokens decoded by all compactions of a session over the history tokens they replaced",
    _output_over_input,
    statistics=RANGE,
)
MEASURES = (OUTPUT, THINKING, OUTPUT_OVER_INPUT)
F1_MINUS_ONE_PROMPT = Difference(
    "f1_minus_one_prompt",
    "Official F1 with a prompt for each content type less that with compared_prompt, question by "
    "question; empty for arms with one prompt",
    F1,
)

COLUMNS: tuple[Column, ...] = (
    *LABELS,
    CATEGORIES,
    identity.TAU,
    *identity.ARM,
    identity.PROMPT,
    text("note", "Why the numbers of the row say nothing; empty: they count."),
    GATE,
    count("num_cells", "Cells behind the row.", ColumnKind.HOST),
    count(
        "num_answers",
        "Answers on the compacted history whose evidence had been compacted once or more.",
        ColumnKind.SAMPLED,
    ),
    *(
        count(
            f"num_{kind}_history_blocks",
            f"History blocks of all compactions whose text is mostly {kind.replace('_', ' ')}.",
            ColumnKind.SAMPLED,
        )
        for kind in ContentType
    ),
    *(column for measure in MEASURES for column in measure.columns()),
    *natural_volume.COLUMNS,
    *(column for score in SCORES for column in score.columns()),
    *(column for score in LAST_TOKENS for column in score.columns()),
    *F1_MINUS_CLOSED_BOOK.columns(),
    text("compared_prompt", "The one prompt of the arm that the difference is taken against."),
    *F1_MINUS_ONE_PROMPT.columns(),
)

ComparisonKey = tuple[float, str, str, str, int, bool, str, int]


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row a prompt, arm and categories of an experiment, backbone, dataset and tau."""
    cells = sorted(
        (
            cell
            for cell in inputs.cells
            if cell.study is Study.BLOCK_PROMPTS and cell.record.arm not in set(Reference)
        ),
        key=lambda cell: (_comparison_key(cell), cell.prompt),
    )
    comparisons = [
        {prompt: list(members) for prompt, members in groupby(group, key=lambda one: one.prompt)}
        for _, group in groupby(cells, key=_comparison_key)
    ]
    twins = iter(same_blocks([own for by_prompt in comparisons for own in by_prompt.values()]))
    standings = standings_of(inputs.cells)
    rows: list[dict[str, Any]] = []
    for by_prompt in comparisons:
        gated = {
            prompt: natural_volume.column_values([cell.record for cell in own], next(twins))
            for prompt, own in by_prompt.items()
        }
        members = [cell for own in by_prompt.values() for cell in own]
        for categories in groups_of_categories(members):
            task = (members[0].backbone, members[0].dataset, categories)
            rows += _rows(by_prompt, gated, standings.get(task, NOTHING_PLAYED), categories)
    return frame(rows, COLUMNS)


def _rows(
    by_prompt: Mapping[str, Sequence[LoadedCell]],
    gated: Mapping[str, Mapping[str, Any]],
    standing: Standing,
    categories: str,
) -> Iterator[dict[str, Any]]:
    """The prompts of one arm, on the questions of one group of categories."""
    asked = {
        prompt: answers_on(own, AnswerContext.COMPACTED, categories)
        for prompt, own in by_prompt.items()
    }
    cannot = set() if standing.is_shown(asked.values()) else {Gate.CANNOT_DO_TASK}
    for prompt, cells in by_prompt.items():
        compared = _compared_prompt(prompt, by_prompt)
        yield {
            **_arm_values(prompt, cells),
            "categories": categories,
            "gate": gate_of(natural_volume.gates_of(gated[prompt]) | cannot),
            "compared_prompt": compared,
            **gated[prompt],
            **_scores(asked[prompt], asked[compared] if compared is not None else []),
            **F1_MINUS_CLOSED_BOOK.values(asked[prompt], standing.closed_book),
            **_last_tokens(answers_on(cells, AnswerContext.TRUNCATION, categories)),
        }


def _scores(asked: Sequence[Asked], others: Sequence[Asked]) -> dict[str, Any]:
    values = {"num_answers": len(asked), **F1_MINUS_ONE_PROMPT.values(asked, others)}
    for score in SCORES:
        values |= score.values(asked)
    return values


def _last_tokens(asked: Sequence[Asked]) -> dict[str, Any]:
    return {name: value for score in LAST_TOKENS for name, value in score.values(asked).items()}


def _arm_values(prompt: str, cells: Sequence[LoadedCell]) -> dict[str, Any]:
    """What the cells of an arm say whatever the questions."""
    cell, records = cells[0], [one.record for one in cells]
    row = {
        **label_values(cell),
        "tau_tokens": cell.record.spec.tau_tokens,
        **identity.arm_values(cell),
        "prompt": prompt,
        "note": NOISE if cell.weights is Weights.RANDOM else None,
        "num_cells": len(cells),
        **_content_counts(records),
    }
    for measure in MEASURES:
        row |= measure.values(records)
    return row


def _compared_prompt(prompt: str, by_prompt: Mapping[str, Sequence[LoadedCell]]) -> str | None:
    """The one prompt that an arm by content type falls back on, as its cells' specs say."""
    if prompt != BY_CONTENT_TYPE:
        return None
    own = by_prompt[prompt][0].record.spec.prompt
    return next(
        (
            name
            for name, cells in by_prompt.items()
            if name != prompt and cells[0].record.spec.prompt == own
        ),
        None,
    )


def _content_counts(records: Iterable[CellRecord]) -> dict[str, int]:
    kinds: Sequence[ContentType] = [
        kind
        for record in records
        for compaction in record.compactions
        for kind in compaction.block_content
    ]
    return {f"num_{kind}_history_blocks": kinds.count(kind) for kind in ContentType}


def _comparison_key(cell: LoadedCell) -> ComparisonKey:
    record = cell.record
    return (
        cell.num_parameters,
        cell.backbone,
        cell.dataset,
        cell.experiment,
        record.spec.tau_tokens or 0,
        record.arm != SEQUENTIAL,
        record.arm,
        record.block_size_tokens or 0,
    )
