"""`compaction_layouts.csv`: what a worker is shown, and what that costs and keeps.

A study of ours. A layout decides how much of the cached history a worker can use: one that cuts
the history out of its place computes it again. At equal volume and history the table sets the
engine's work beside its effects: uncached prompt tokens, first-token latency, the wall time of
the compaction, and speed-ups inside timing blocks against sequential and against the paper's
layout at the same B. A speed-up counts from the first worker request to the last answer, so no
client work is in it; the stall has both. Recall of the same layout, B and prompt stands beside
it, from deferred cells of any experiment.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from blockwise.compaction.records import AnswerContext, CellRecord
from blockwise.config.arms import SEQUENTIAL
from blockwise.config.backbones import Weights
from blockwise.config.choices import Protocol, Study
from blockwise.tables.columns import Column, ColumnKind, count, frame, text
from blockwise.tables.compaction.parts import identity, measures, natural_volume
from blockwise.tables.compaction.parts.categories import HEADLINE
from blockwise.tables.compaction.parts.comparison import (
    LABELS,
    Arm,
    Pairs,
    compared_arms,
    label_values,
    pairs_of,
    sequential_of,
    unequal_volume_column,
)
from blockwise.tables.compaction.parts.gates import Gate, gate_column, gate_of
from blockwise.tables.compaction.parts.load import distinct_cells
from blockwise.tables.compaction.parts.recall import (
    CONTAINS_GOLD,
    F1,
    LAST_TOKENS,
    NOISE,
    Asked,
    answers_on,
)
from blockwise.tables.compaction.parts.standing import standings_of
from blockwise.tables.compaction.parts.summaries import SPREAD, Measure, Ratio
from blockwise.tables.inputs import LoadedCell, TableInputs

TARGET_BLOCK = "target_block"  # the paper's layout
NO_LAYOUT = "sequential has no layout"
NO_RECALL = "no recall cell of this layout, B and prompt"
RECALL = tuple(
    replace(
        score,
        name=f"recall_{score.name}",
        meaning=f"{score.meaning}, on the compacted history, at the same layout, B and prompt",
    )
    for score in (F1, CONTAINS_GOLD)
)
RECALL_LAST_TOKENS = tuple(replace(score, name=f"recall_{score.name}") for score in LAST_TOKENS)


def _timed(
    name: str, suffix: str, unit: str, meaning: str, of: Callable[[CellRecord], float | None]
) -> Measure:
    return Measure(name, suffix, unit, ColumnKind.TIMED, meaning, of)


MEASURES = (
    Measure(
        "num_blocks",
        "",
        "count",
        ColumnKind.SAMPLED,
        "Realised history blocks, one worker each",
        lambda record: sum(item.num_blocks for item in record.compactions),
        SPREAD,
    ),
    _timed(
        "worker_uncached",
        "_tokens",
        "tokens",
        "Prompt tokens of all workers that the engine computed",
        measures.worker_uncached_tokens,
    ),
    _timed(
        "worker_mean_ttft",
        "_s",
        "s",
        "First-token latency, mean over the workers of a compaction",
        measures.worker_mean_ttft_s,
    ),
    _timed(
        "worker_max_ttft",
        "_s",
        "s",
        "First-token latency of the last worker to start decoding",
        measures.worker_max_ttft_s,
    ),
    _timed(
        "compaction_wall",
        "_s",
        "s",
        "First worker request to last answer",
        measures.compaction_wall_s,
    ),
    _timed(
        "stall",
        "_s",
        "s",
        "Start of the compaction to new history, client work included",
        measures.compaction_stall_s,
    ),
    _timed(
        "compaction_decode",
        "_tokens_per_s",
        "tokens/s",
        "Compaction output tokens over the wall time of the compaction",
        measures.compaction_decode_tokens_per_s,
    ),
)
SPEEDUP = Ratio(
    "speedup",
    "Compaction wall time of sequential over this arm's, above 1 is faster",
    measures.compaction_wall_s,
    reference_over_own=True,
)
TARGET_BLOCK_SPEEDUP = Ratio(
    f"{TARGET_BLOCK}_speedup",
    "Compaction wall time of target_block at the same B over this arm's, above 1 is faster",
    measures.compaction_wall_s,
    reference_over_own=True,
)
RECALL_COLUMNS: tuple[Column, ...] = (
    *(column for score in RECALL for column in score.columns()),
    *(column for score in RECALL_LAST_TOKENS for column in score.columns()),
    count(
        "recall_num_answers",
        "Headline answers on the compacted history, seeds and repeats apart.",
        ColumnKind.SAMPLED,
    ),
    *(replace(column, name=f"recall_{column.name}") for column in natural_volume.SHARES),
    gate_column("recall_gate", "the recall of the row"),
    text("recall_tau", "Trigger thresholds of its sessions, in tokens."),
    text("recall_note", "Why there is no recall, or why it says nothing.", ColumnKind.HOST),
)
COLUMNS: tuple[Column, ...] = (
    *LABELS,
    identity.HISTORY,
    *(column for measure in MEASURES for column in measure.columns()),
    *SPEEDUP.columns(),
    unequal_volume_column(),
    text("speedup_omitted_reason", "Why there is no speed-up.", ColumnKind.HOST),
    *TARGET_BLOCK_SPEEDUP.columns(),
    unequal_volume_column(f"{TARGET_BLOCK}_"),
    text(
        f"{TARGET_BLOCK}_speedup_omitted_reason",
        "Why there is no speed-up against target_block.",
        ColumnKind.HOST,
    ),
    *RECALL_COLUMNS,
)

RecallKey = tuple[str, str, str, str, int | None]
PromptKey = tuple[str, str, str]


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row a layout and B of an experiment, backbone, dataset, prompt and history length.

    Raises:
        ArtifactError: a timing block holds an arm twice, or an arm mixes settings.
    """
    recall = _recall_cells(inputs.cells)
    cannot = _prompts_that_cannot(recall, inputs.cells)
    rows = []
    for arms in compared_arms(inputs.cells, Study.LAYOUTS):
        sequential = sequential_of(arms)
        for arm in arms:
            rows.append(
                {
                    **_timing(arm),
                    **_speedups(pairs_of(arm, sequential), _target_pairs(arm, arms)),
                    **_recall(recall.get(_recall_key(arm.cells[0]), []), cannot),
                }
            )
    return frame(rows, COLUMNS)


def _timing(arm: Arm) -> dict[str, Any]:
    row = {**label_values(arm), "history_tokens": arm.settings.history_tokens}
    for measure in MEASURES:
        row |= measure.values(arm.valid.values())
    return row


def _target_pairs(arm: Arm, arms: Sequence[Arm]) -> Pairs:
    """The arm beside the paper's layout at the same B."""
    if arm.name == SEQUENTIAL:
        return Pairs.none(NO_LAYOUT)
    same_size = (
        other
        for other in arms
        if other.name == TARGET_BLOCK and other.block_size_tokens == arm.block_size_tokens
    )
    return pairs_of(arm, next(same_size, None))


def _speedups(pairs: Pairs, target_pairs: Pairs) -> dict[str, Any]:
    return {
        **SPEEDUP.values(pairs.own, pairs.reference),
        "num_unequal_volume_timing_blocks": pairs.num_unequal_volume,
        "speedup_omitted_reason": pairs.omitted_reason,
        **TARGET_BLOCK_SPEEDUP.values(target_pairs.own, target_pairs.reference),
        f"{TARGET_BLOCK}_num_unequal_volume_timing_blocks": target_pairs.num_unequal_volume,
        f"{TARGET_BLOCK}_speedup_omitted_reason": target_pairs.omitted_reason,
    }


def _recall_key(cell: LoadedCell) -> RecallKey:
    record = cell.record
    return cell.backbone, cell.dataset, cell.prompt, record.arm, record.block_size_tokens


def _recall_cells(cells: Iterable[LoadedCell]) -> Mapping[RecallKey, list[LoadedCell]]:
    """Deferred cells by what must agree, each once however many experiments select it."""
    found: dict[RecallKey, list[LoadedCell]] = {}
    deferred = [
        cell
        for cell in cells
        if cell.record.protocol is Protocol.DEFERRED and cell.record.spec.strategy is None
    ]
    for cell in distinct_cells(deferred):
        found.setdefault(_recall_key(cell), []).append(cell)
    return found


def _prompts_that_cannot(
    recall: Mapping[RecallKey, Sequence[LoadedCell]], cells: Iterable[LoadedCell]
) -> set[PromptKey]:
    """Backbone, dataset and prompt of arms that do not show that the task can be done."""
    standings = standings_of(cells)
    compared: dict[PromptKey, list[list[Asked]]] = {}
    for (backbone, dataset, prompt, *_), own in recall.items():
        answers = answers_on(own, AnswerContext.COMPACTED)
        compared.setdefault((backbone, dataset, prompt), []).append(answers)
    return {
        key
        for key, arms in compared.items()
        if not standings[(key[0], key[1], HEADLINE)].is_shown(arms)
    }


def _recall(cells: Sequence[LoadedCell], cannot: Collection[PromptKey]) -> dict[str, Any]:
    """The recall columns of an arm; without a recall cell all but the reason are empty."""
    answers = answers_on(cells, AnswerContext.COMPACTED)
    taus = sorted({cell.record.spec.tau_tokens or 0 for cell in cells})
    note = NOISE if answers and cells[0].weights is Weights.RANDOM else None
    truncated = answers_on(cells, AnswerContext.TRUNCATION)
    shares = natural_volume.column_values([cell.record for cell in cells], None)
    gates = natural_volume.gates_of(shares)
    if answers and _recall_key(cells[0])[:3] in cannot:
        gates.add(Gate.CANNOT_DO_TASK)
    row = {f"recall_{column.name}": shares[column.name] for column in natural_volume.SHARES}
    for score in RECALL:
        row |= score.values(answers)
    for score in RECALL_LAST_TOKENS:
        row |= score.values(truncated)
    return {
        **row,
        "recall_gate": gate_of(gates) if answers else None,
        "recall_num_answers": len(answers),
        "recall_tau": " ".join(str(tau) for tau in taus) or None,
        "recall_note": note if answers else NO_RECALL,
    }
