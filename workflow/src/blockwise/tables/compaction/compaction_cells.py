"""`compaction_cells.csv`: one row a cell and experiment; the facts behind every comparison.

A cell that two experiments select has a row in each, so a reader filters by experiment and
never joins.
"""

from typing import Any

import pandas as pd

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
from blockwise.tables.compaction.parts import cell_accuracy, identity, measures
from blockwise.tables.inputs import LoadedCell, TableInputs

ROLES = ("agent", "worker", "unused", "question", "bystander")


def _token_columns(role: str, requests: str) -> tuple[Column, ...]:
    sampled, timed = ColumnKind.SAMPLED, ColumnKind.TIMED
    return (
        tokens(f"{role}_prompt_tokens", f"Prompt tokens of {requests}.", sampled),
        tokens(
            f"{role}_cached_tokens",
            f"Prompt tokens of {requests} that the engine found in its prefix cache; depends "
            "on its schedule. Empty: not reported.",
            timed,
        ),
        tokens(
            f"{role}_uncached_tokens",
            f"Prompt tokens of {requests} that the engine computed. Empty: not reported.",
            timed,
        ),
        tokens(
            f"{role}_completion_tokens",
            f"Tokens decoded by {requests}, thinking included.",
            sampled,
        ),
    )


COLUMNS: tuple[Column, ...] = (
    text("experiment", "Experiment that selects the cell."),
    text("study", "Study of the experiment: the table and the figure that it feeds."),
    identity.BACKBONE,
    identity.NUM_PARAMETERS,
    identity.DATASET,
    identity.FORMAT,
    identity.CAPTION,
    text("weights", "What the weights know: random (nothing), pocket, or published."),
    identity.CELL_KEY,
    text("session_id", "Session that the agent played."),
    count("seed", "Seed of sampling; the order of arms follows from the timing block.", unit=""),
    count("repeat", "Repeat of the same cell under the same seed.", unit=""),
    count(
        "server_start",
        "Index of the server start that the cell's times are of; empty for a recall cell.",
        unit="",
    ),
    *identity.ARM,
    *identity.DISPATCH,
    identity.PROMPT,
    number(
        "target_frac",
        "Output over input that the prompt asks for; empty: it names none.",
        ColumnKind.EXACT,
        "1",
    ),
    identity.BOUNDARY,
    count("max_concurrent_workers", "Most workers sent at once; empty: all."),
    text(
        "protocol",
        "immediate: a session, questions in their turn; deferred: a session, questions after a "
        "closing compaction; single: one compaction; shared: one while others use the engine.",
    ),
    identity.TAU,
    identity.HISTORY,
    count("num_bystanders", "Other sessions on the same engine."),
    identity.TRANSCRIPT,
    count("num_verbatim_turns", "Last turns that a compaction leaves as they are."),
    tokens("answer_tokens", "Budget of one answer."),
    identity.VOLUME_MODE,
    identity.VOLUME_TOKENS,
    identity.TIMING_BLOCK,
    count(
        "position_in_timing_block",
        "Place of the cell in the random order of its timing block.",
        unit="",
    ),
    flag(
        "timing_valid", "Whether the cell's times count; empty for a recall cell.", ColumnKind.HOST
    ),
    text("timing_invalid_reasons", "Why they do not; empty for a recall cell.", ColumnKind.HOST),
    seconds("wall_s", "Wall time of the whole session."),
    seconds("waited_s", "Part of it that the agent waited for tools."),
    count("num_turns", "Document turns played."),
    count("num_compactions", "Compactions in the session.", ColumnKind.SAMPLED),
    seconds("compaction_wall_s", "First worker request to last answer, all compactions."),
    seconds("compaction_stall_s", "Time the agent waited for new histories, client included."),
    number("compaction_stall_frac", "Share of wall_s that is stall.", ColumnKind.TIMED, "1"),
    tokens(
        "compaction_input_tokens", "History tokens that summaries replaced.", ColumnKind.SAMPLED
    ),
    tokens(
        "compaction_output_tokens",
        "Tokens decoded by all workers, thinking included.",
        ColumnKind.SAMPLED,
    ),
    tokens("compaction_thinking_tokens", "Thinking tokens among them.", ColumnKind.SAMPLED),
    number(
        "length_finish_frac",
        "Share of workers that stopped at their budget; 1 by construction if forced.",
        ColumnKind.SAMPLED,
        "1",
    ),
    *_token_columns("agent", "the agent's turns"),
    *_token_columns("worker", "the compaction workers"),
    *_token_columns("unused", "workers that were sent ahead and that no compaction took"),
    *_token_columns("question", "deferred questions"),
    *_token_columns("bystander", "bystanders"),
    tokens("thinking_tokens", "Thinking tokens of all requests.", ColumnKind.SAMPLED),
    tokens(
        "total_tokens",
        "Total tokens spent: prompt and completion of all requests, cached included.",
        ColumnKind.SAMPLED,
    ),
    *cell_accuracy.COLUMNS,
    count("num_skipped_rows", "Malformed dataset rows left out of the whole dataset."),
    count(
        "num_preemptions",
        "Requests that the engine preempted; empty: it does not tell, or other cells ran too.",
        ColumnKind.TIMED,
    ),
    seconds("client_cpu_s", "CPU time of the client process; empty: it ran other cells too."),
    number(
        "load_average_1min", "Load average when the cell started.", ColumnKind.HOST, "processes"
    ),
    number("cpu_steal_frac", "CPU time stolen at the start.", ColumnKind.HOST, "1"),
    text("engine_card_id", "Server start that played it; see engine_cards.", ColumnKind.HOST),
    text("host", "Machine.", ColumnKind.HOST),
    text("commit", "Commit of the checkout.", ColumnKind.HOST),
    flag("dirty", "Whether the checkout held uncommitted changes.", ColumnKind.HOST),
    text("code_digest", "Digest of the modules on the cell's import path."),
)


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row a cell and experiment, in the order given."""
    return frame([_row(cell) for cell in inputs.cells], COLUMNS)


def _row(cell: LoadedCell) -> dict[str, Any]:
    record = cell.record
    is_timing = record.timing_block_id is not None
    reasons = record.timing_invalid_reasons if is_timing else ()
    return {
        "study": cell.study,
        "target_frac": cell.target_frac,
        "format": cell.format,
        "weights": cell.weights.value,
        "session_id": record.session_id,
        "seed": record.seed,
        "repeat": record.repeat,
        "server_start": record.server_start if is_timing else None,
        "position_in_timing_block": record.position_in_block,
        "timing_valid": record.timing_valid if is_timing else None,
        "timing_invalid_reasons": "; ".join(reasons) or None,
        "wall_s": record.wall_s,
        "waited_s": record.waited_s,
        "num_turns": record.num_turns,
        "num_skipped_rows": cell.num_skipped_rows,
        "num_preemptions": record.num_preemptions,
        "client_cpu_s": record.client_cpu_s,
        "load_average_1min": record.environment.load_average_1min,
        "cpu_steal_frac": record.environment.cpu_steal_frac,
        "engine_card_id": record.engine_card_id,
        "host": record.environment.host,
        "commit": record.environment.commit,
        "dirty": record.environment.dirty,
        **identity.cell_identity(cell),
        **identity.arm_identity(cell),
        **identity.dispatch_values(cell),
        **_settings(cell),
        **_compactions(cell),
        **_tokens(cell),
        **cell_accuracy.values(cell),
    }


def _settings(cell: LoadedCell) -> dict[str, Any]:
    settings = cell.record.spec
    return {
        "protocol": settings.protocol,
        "max_concurrent_workers": settings.max_concurrent_workers,
        "tau_tokens": settings.tau_tokens,
        "history_tokens": settings.history_tokens,
        "num_bystanders": settings.num_bystanders,
        "transcript": settings.transcript,
        "num_verbatim_turns": settings.last_turns,
        "answer_tokens": settings.answer_tokens,
        "volume_mode": settings.volume_mode,
        "volume_tokens": settings.volume_tokens,
        "code_digest": settings.code_digest,
    }


def _compactions(cell: LoadedCell) -> dict[str, Any]:
    record = cell.record
    return {
        "num_compactions": len(record.compactions),
        "compaction_wall_s": measures.compaction_wall_s(record),
        "compaction_stall_s": measures.compaction_stall_s(record),
        "compaction_stall_frac": measures.compaction_stall_frac(record),
        "compaction_input_tokens": sum(item.input_tokens for item in record.compactions),
        "compaction_output_tokens": measures.compaction_output_tokens(record),
        "compaction_thinking_tokens": sum(item.thinking_tokens for item in record.compactions),
        "length_finish_frac": measures.length_finish_frac(record),
    }


def _tokens(cell: LoadedCell) -> dict[str, Any]:
    record = cell.record
    values: dict[str, Any] = {
        "thinking_tokens": sum(request.thinking_tokens for request in record.requests),
        "total_tokens": measures.total_tokens(record),
    }
    for role in ROLES:
        spent = measures.tally(request for request in record.requests if request.role == role)
        values[f"{role}_prompt_tokens"] = spent.prompt_tokens
        values[f"{role}_cached_tokens"] = spent.cached_tokens
        values[f"{role}_uncached_tokens"] = spent.uncached_tokens
        values[f"{role}_completion_tokens"] = spent.completion_tokens
    return values
