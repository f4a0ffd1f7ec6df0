"""`compaction_answers.csv`: one row an answer of a recall cell.

What the claims about recall read: the scores of every question on every context, with the cluster
that it counts in. A cell that several experiments select stands here once, so that no answer
counts twice. A session of LoCoMo may chain several conversations, and one
conversation may stand in several sessions, so the cluster is the conversation there; in HotpotQA
it is the session, whose questions share one summary.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from blockwise.config.choices import Protocol
from blockwise.tables.columns import Column, ColumnKind, count, flag, frame, number, text, tokens
from blockwise.tables.compaction.parts import identity, measures
from blockwise.tables.compaction.parts.answer_gates import AnswerGates
from blockwise.tables.compaction.parts.categories import CATEGORIES
from blockwise.tables.compaction.parts.gates import gate_column
from blockwise.tables.compaction.parts.load import selections_of
from blockwise.tables.compaction.parts.recall import asked_in
from blockwise.tables.inputs import LoadedCell, TableInputs

COLUMNS: tuple[Column, ...] = (
    text("experiments", "Experiments that select the cell, in order, with spaces between."),
    text("studies", "Their studies, each once: the tables and figures that they feed."),
    identity.BACKBONE,
    identity.NUM_PARAMETERS,
    identity.DATASET,
    identity.FORMAT,
    text("weights", "What the weights know: random (nothing), pocket, or published."),
    identity.CELL_KEY,
    text("session_id", "Session that the agent played."),
    count("seed", "Seed of sampling.", unit=""),
    count("repeat", "Repeat of the same cell under the same seed.", unit=""),
    *identity.ARM,
    identity.PROMPT,
    identity.TAU,
    text(
        "answer_context",
        "What the question was asked on; see compaction_accuracy_volume. strategy: the history "
        "that a strategy left, of which compaction_strategies tells.",
    ),
    text("question_id", "The question; unique in its session."),
    text("cluster", "What its score counts in. LoCoMo: conversation; HotpotQA: session."),
    CATEGORIES,
    text("category", "HotpotQA: bridge or comparison; LoCoMo: 1 to 5, of which 5 has no answer."),
    flag(
        "evidence_compacted",
        "Whether its evidence had been compacted once or more: an answer on a compacted history "
        "measures recall only then.",
        ColumnKind.SAMPLED,
    ),
    count(
        "num_evidence_compactions",
        "How many compactions had gone over its evidence.",
        ColumnKind.SAMPLED,
    ),
    number("exact_match", "Official exact match; empty: none is defined.", ColumnKind.SAMPLED, "1"),
    number("f1", "Official F1.", ColumnKind.SAMPLED, "1"),
    number(
        "contains_gold",
        "1: the answer contains the normalised gold, or each part of a comma-separated one; "
        "LoCoMo's category 5: it refuses; 0: it does not.",
        ColumnKind.SAMPLED,
        "1",
    ),
    tokens(
        "compaction_output_tokens",
        "Tokens decoded by all compactions of the cell, thinking included.",
        ColumnKind.SAMPLED,
    ),
    gate_column(of="the answer, which has the gate of its arm over all experiments"),
)


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row an answer, in the order of the cells and of the questions."""
    gates = AnswerGates.of(inputs.cells)
    return frame(
        [row for seen in selections_of(inputs.cells) for row in _rows(seen, gates)],
        COLUMNS,
    )


def _rows(selections: Sequence[LoadedCell], gates: AnswerGates) -> Iterator[dict[str, Any]]:
    """The answers of one cell, as all experiments that select it see it."""
    cell = selections[0]
    record = cell.record
    if record.protocol is not Protocol.DEFERRED:
        return
    shared = {
        "experiments": " ".join(sorted({one.experiment for one in selections})),
        "studies": " ".join(sorted({one.study for one in selections})),
        "backbone": cell.backbone,
        "num_parameters": cell.num_parameters,
        "dataset": cell.dataset,
        "format": cell.format,
        "weights": cell.weights.value,
        "cell_key": record.cell_key,
        "session_id": record.session_id,
        "seed": record.seed,
        "repeat": record.repeat,
        **identity.arm_values(cell),
        "prompt": cell.prompt,
        "tau_tokens": record.spec.tau_tokens,
        "compaction_output_tokens": measures.compaction_output_tokens(record),
    }
    for one in asked_in(cell):
        yield {
            **shared,
            "answer_context": one.answer.context,
            "question_id": one.answer.question_id,
            "cluster": one.cluster,
            "categories": one.categories,
            "category": one.answer.category,
            "evidence_compacted": one.answer.num_evidence_compactions > 0,
            "num_evidence_compactions": one.answer.num_evidence_compactions,
            "exact_match": one.answer.exact_match,
            "f1": one.answer.f1,
            "contains_gold": one.answer.contains_gold,
            "gate": gates.gate(cell, one),
        }
