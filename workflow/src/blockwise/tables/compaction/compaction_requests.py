"""`compaction_requests.csv`: one row a request, each cell once; texts stay in the records."""

from typing import Any

import pandas as pd

from blockwise.compaction.records import RequestRecord
from blockwise.tables.columns import Column, ColumnKind, count, frame, seconds, text, tokens
from blockwise.tables.compaction.parts.identity import (
    ARM,
    CELL_IDENTITY,
    arm_values,
    cell_identity,
)
from blockwise.tables.compaction.parts.load import distinct_cells
from blockwise.tables.inputs import TableInputs

REQUEST_COLUMNS: tuple[Column, ...] = (
    text(
        "role",
        "agent: a turn; worker: a compaction's; unused: a worker that was sent ahead and that no "
        "compaction took; question: a deferred one; bystander: of another session on the same "
        "engine.",
    ),
    count("turn_index", "Turn being played; workers: the one that triggered them.", unit=""),
    count(
        "compaction_index",
        "Worker: its compaction; bystander: the one that ran meanwhile. Empty: none.",
        unit="",
    ),
    count(
        "worker_index",
        "Worker: place of its history block, from 0; bystander: which one. Empty for others.",
        unit="",
    ),
    count("num_messages", "Messages in the request.", ColumnKind.SAMPLED),
    tokens("prompt_tokens", "Prompt tokens, by the engine's usage.", ColumnKind.SAMPLED),
    tokens("cached_tokens", "Found in the prefix cache; empty: not reported.", ColumnKind.TIMED),
    tokens(
        "completion_tokens",
        "Tokens decoded, thinking included; max_tokens by construction if forced.",
        ColumnKind.SAMPLED,
    ),
    tokens("thinking_tokens", "Thinking tokens among them.", ColumnKind.SAMPLED),
    tokens("max_tokens", "Budget of the request.", ColumnKind.SAMPLED),
    seconds("start_s", "Seconds from the start of the cell to the request."),
    seconds("ttft_s", "Time to first token."),
    seconds("wall_s", "Request sent to answer complete."),
    seconds("queue_s", "Time before the engine took it up, by its clock; empty: not reported."),
    seconds("decode_s", "First token to last, by the engine's clock; empty: not reported."),
    text("finish_reason", "Why decoding ended: stop or length.", ColumnKind.SAMPLED),
    text(
        "summary_fault",
        "Worker of natural volume: why its answer is no summary (length, empty, echo, loop, "
        "refusal), which the experiment accepts. Empty: it is one.",
        ColumnKind.SAMPLED,
    ),
    count("num_retries", "Attempts that failed before this answer.", ColumnKind.HOST),
)
COLUMNS: tuple[Column, ...] = (
    *CELL_IDENTITY,
    *ARM,
    count("request_index", "Place in the cell's record, from 0.", unit=""),
    *REQUEST_COLUMNS,
)


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row a request, in the order of the cells and of their records."""
    rows = [
        {
            **cell_identity(cell),
            **arm_values(cell),
            "request_index": index,
            **_request(request),
        }
        for cell in distinct_cells(inputs.cells)
        for index, request in enumerate(cell.record.requests)
    ]
    return frame(rows, COLUMNS)


def _request(request: RequestRecord) -> dict[str, Any]:
    return {column.name: getattr(request, column.name) for column in REQUEST_COLUMNS}
