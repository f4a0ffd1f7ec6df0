"""`compaction_block_prompts.csv`: a prompt for each content type against one prompt for all.

An arm is played twice on the same sessions: once each history block is summarised by the prompt
of its content type, once all by the same prompt. Recall is compared question by question. The
volume that each spends stands beside it, because more words remember more.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import pandas as pd

from blockwise.compaction.records import BY_CONTENT_TYPE, AnswerContext, CellRecord
from blockwise.config.backbones import Weights
from blockwise.config.experiments import SEQUENTIAL, ContentType, Reference, Study
from blockwise.tables import compaction_cells, measures
from blockwise.tables.columns import Column, ColumnKind, count, frame, text
from blockwise.tables.inputs import TableInputs
from blockwise.tables.load import LoadedCell
from blockwise.tables.recall import (
    EXACT_MATCH,
    F1,
    F1_ANSWERABLE,
    LABELS,
    NOISE,
    OUTPUT,
    RANGE,
    THINKING,
    Difference,
    answers_on,
    label_values,
)
from blockwise.tables.settings import settings_of
from blockwise.tables.summaries import Measure


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
SCORES = (EXACT_MATCH, F1, F1_ANSWERABLE)
F1_MINUS_ONE_PROMPT = Difference(
    "f1_minus_one_prompt",
    "Official F1 with a prompt for each content type less that with compared_prompt, question by "
    "question; empty for arms with one prompt",
    F1,
)

COLUMNS: tuple[Column, ...] = (
    *LABELS,
    compaction_cells.TAU,
    *compaction_cells.ARM,
    compaction_cells.PROMPT,
    text("note", "Why the numbers of the row say nothing; empty: they count."),
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
    *(column for score in SCORES for column in score.columns()),
    text("compared_prompt", "The one prompt of the arm that the difference is taken against."),
    *F1_MINUS_ONE_PROMPT.columns(),
)

ComparisonKey = tuple[float, str, str, str, int, bool, str, int]


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row a prompt and arm of an experiment, backbone, dataset and tau."""
    cells = sorted(
        (
            cell
            for cell in inputs.cells
            if cell.study is Study.BLOCK_PROMPTS and cell.record.arm not in set(Reference)
        ),
        key=lambda cell: (_comparison_key(cell), cell.prompt),
    )
    rows = []
    for _, group in groupby(cells, key=_comparison_key):
        by_prompt = {
            prompt: list(members) for prompt, members in groupby(group, key=lambda one: one.prompt)
        }
        rows += [_row(prompt, by_prompt) for prompt in by_prompt]
    return frame(rows, COLUMNS)


def _row(prompt: str, by_prompt: dict[str, list[LoadedCell]]) -> dict[str, Any]:
    cells = by_prompt[prompt]
    cell, records = cells[0], [one.record for one in cells]
    asked = answers_on(cells, AnswerContext.COMPACTED)
    compared = _compared_prompt(prompt, by_prompt)
    others = by_prompt[compared] if compared is not None else []
    row = {
        **label_values(cell),
        "tau_tokens": settings_of(cell.record).tau_tokens,
        **compaction_cells.arm_values(cell),
        "prompt": prompt,
        "note": NOISE if cell.weights is Weights.RANDOM else None,
        "num_cells": len(cells),
        "num_answers": len(asked),
        **_content_counts(records),
        "compared_prompt": compared,
        **F1_MINUS_ONE_PROMPT.values(asked, answers_on(others, AnswerContext.COMPACTED)),
    }
    for measure in MEASURES:
        row |= measure.values(records)
    for score in SCORES:
        row |= score.values(asked)
    return row


def _compared_prompt(prompt: str, by_prompt: dict[str, list[LoadedCell]]) -> str | None:
    """The one prompt that an arm by content type falls back on, as its cells' specs say."""
    if prompt != BY_CONTENT_TYPE:
        return None
    own = by_prompt[prompt][0].record.spec.get("prompt")
    return next(
        (
            name
            for name, cells in by_prompt.items()
            if name != prompt and cells[0].record.spec.get("prompt") == own
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
        settings_of(record).tau_tokens or 0,
        record.arm != SEQUENTIAL,
        record.arm,
        record.block_size_tokens or 0,
    )
