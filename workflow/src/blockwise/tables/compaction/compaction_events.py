"""`compaction_events.csv`: one row a compaction, each cell once."""

from typing import Any

import pandas as pd

from blockwise.compaction.records import CompactionRecord
from blockwise.tables.columns import (
    Column,
    ColumnKind,
    count,
    flag,
    frame,
    number,
    seconds,
    text,
    tokens,
)
from blockwise.tables.compaction.parts.identity import (
    ARM,
    CELL_IDENTITY,
    arm_values,
    cell_identity,
)
from blockwise.tables.compaction.parts.load import distinct_cells
from blockwise.tables.inputs import TableInputs

COLUMNS: tuple[Column, ...] = (
    *CELL_IDENTITY,
    *ARM,
    count("compaction_index", "Place among the cell's compactions, from 0.", unit=""),
    count("turn_index", "Turn whose next request exceeded tau.", ColumnKind.SAMPLED, unit=""),
    flag(
        "closing", "The compaction of everything: it ends a deferred session, or is the only one."
    ),
    count("num_blocks", "History blocks, one worker each; 1 for sequential.", ColumnKind.SAMPLED),
    text(
        "realised_block_tokens",
        "Realised history block sizes in order, separated by spaces.",
        ColumnKind.SAMPLED,
    ),
    text(
        "block_content",
        "Content type of each history block in order, separated by spaces.",
        ColumnKind.SAMPLED,
    ),
    tokens("history_before_tokens", "Rendered history before.", ColumnKind.SAMPLED),
    tokens("history_after_tokens", "Rendered history after.", ColumnKind.SAMPLED),
    tokens("input_tokens", "History tokens that the summaries replaced.", ColumnKind.SAMPLED),
    tokens(
        "output_tokens",
        "Tokens decoded by all workers, thinking included; V by construction if forced.",
        ColumnKind.SAMPLED,
    ),
    tokens("thinking_tokens", "Thinking tokens among them.", ColumnKind.SAMPLED),
    tokens("prompt_tokens", "Prompt tokens of all workers.", ColumnKind.SAMPLED),
    tokens("cached_tokens", "Found in the prefix cache; empty: not reported.", ColumnKind.TIMED),
    tokens("uncached_tokens", "Computed by the engine; empty: not reported.", ColumnKind.TIMED),
    seconds("wall_s", "First worker request to last answer."),
    seconds("stall_s", "Trigger to new history: the agent's wait, client included."),
    number(
        "decode_tokens_per_s",
        "output_tokens over wall_s: the workers' prefill counts as time.",
        ColumnKind.TIMED,
        "tokens/s",
    ),
    count("num_length_finishes", "Workers that stopped at their budget.", ColumnKind.SAMPLED),
    count("num_retried_workers", "Workers that needed a second try.", ColumnKind.HOST),
    seconds("ttft_after_s", "First-token latency of the agent's next request; empty: none."),
)


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row a compaction, in the order of the cells and of their compactions."""
    rows = [
        {**cell_identity(cell), **arm_values(cell), **_event(compaction)}
        for cell in distinct_cells(inputs.cells)
        for compaction in cell.record.compactions
    ]
    return frame(rows, COLUMNS)


def _event(compaction: CompactionRecord) -> dict[str, Any]:
    cached = compaction.cached_tokens
    return {
        "compaction_index": compaction.index,
        "turn_index": compaction.turn_index,
        "closing": compaction.closing,
        "num_blocks": compaction.num_blocks,
        "realised_block_tokens": " ".join(str(size) for size in compaction.block_tokens),
        "block_content": " ".join(compaction.block_content),
        "history_before_tokens": compaction.history_before_tokens,
        "history_after_tokens": compaction.history_after_tokens,
        "input_tokens": compaction.input_tokens,
        "output_tokens": compaction.output_tokens,
        "thinking_tokens": compaction.thinking_tokens,
        "prompt_tokens": compaction.prompt_tokens,
        "cached_tokens": cached,
        "uncached_tokens": None if cached is None else compaction.prompt_tokens - cached,
        "wall_s": compaction.wall_s,
        "stall_s": compaction.stall_s,
        "decode_tokens_per_s": (
            compaction.output_tokens / compaction.wall_s if compaction.wall_s > 0 else None
        ),
        "num_length_finishes": compaction.num_length_finishes,
        "num_retried_workers": compaction.num_retried_workers,
        "ttft_after_s": compaction.ttft_after_s,
    }
