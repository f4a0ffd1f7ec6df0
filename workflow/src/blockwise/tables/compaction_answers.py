"""`compaction_answers.csv`: one row an answer of a recall cell and experiment.

What the claims about recall read: the official score of every question on every context, with
the cluster that it counts in. A session of LoCoMo may chain several conversations, and one
conversation may stand in several sessions, so the cluster is the conversation there; in HotpotQA
it is the session, whose questions share one summary.
"""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from blockwise.config.experiments import Protocol
from blockwise.tables import compaction_cells, measures
from blockwise.tables.columns import Column, ColumnKind, count, flag, frame, number, text, tokens
from blockwise.tables.inputs import TableInputs
from blockwise.tables.load import LoadedCell
from blockwise.tables.recall import asked_in
from blockwise.tables.settings import settings_of

COLUMNS: tuple[Column, ...] = (
    *compaction_cells.SCOPE,
    text("study", "Study of the experiment: the table and the figure that it feeds."),
    compaction_cells.FORMAT,
    text("weights", "What the weights know: random (nothing), pocket, or published."),
    compaction_cells.CELL_KEY,
    text("session_id", "Session that the agent played."),
    count("seed", "Seed of sampling.", unit=""),
    count("repeat", "Repeat of the same cell under the same seed.", unit=""),
    *compaction_cells.ARM,
    compaction_cells.PROMPT,
    compaction_cells.TAU,
    text("answer_context", "What the question was asked on; see compaction_accuracy_volume."),
    text("question_id", "The question; unique in its session."),
    text("cluster", "What its score counts in. LoCoMo: conversation; HotpotQA: session."),
    text("category", "HotpotQA: bridge or comparison; LoCoMo: 1 to 5, of which 5 has no answer."),
    flag(
        "evidence_compacted",
        "Whether its evidence had been compacted once or more: an answer on a compacted history "
        "measures recall only then.",
        ColumnKind.SAMPLED,
    ),
    number("exact_match", "Official exact match; empty: none is defined.", ColumnKind.SAMPLED, "1"),
    number("f1", "Official F1.", ColumnKind.SAMPLED, "1"),
    tokens(
        "compaction_output_tokens",
        "Tokens decoded by all compactions of the cell, thinking included.",
        ColumnKind.SAMPLED,
    ),
)


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row an answer, in the order of the cells and of the questions."""
    return frame([row for cell in inputs.cells for row in _rows(cell)], COLUMNS)


def _rows(cell: LoadedCell) -> Iterator[dict[str, Any]]:
    record = cell.record
    if record.protocol is not Protocol.DEFERRED:
        return
    shared = {
        "experiment": cell.experiment,
        "backbone": cell.backbone,
        "num_parameters": cell.num_parameters,
        "dataset": cell.dataset,
        "study": cell.study,
        "format": cell.format,
        "weights": cell.weights.value,
        "cell_key": record.cell_key,
        "session_id": record.session_id,
        "seed": record.seed,
        "repeat": record.repeat,
        **compaction_cells.arm_values(cell),
        "prompt": cell.prompt,
        "tau_tokens": settings_of(record).tau_tokens,
        "compaction_output_tokens": measures.compaction_output_tokens(record),
    }
    for one in asked_in(cell):
        yield {
            **shared,
            "answer_context": one.answer.context,
            "question_id": one.answer.question_id,
            "cluster": one.cluster,
            "category": one.answer.category,
            "evidence_compacted": one.answer.num_evidence_compactions > 0,
            "exact_match": one.answer.exact_match,
            "f1": one.answer.f1,
        }
