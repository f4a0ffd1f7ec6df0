"""`compaction_cells.csv`: one row a cell and experiment; the facts behind every comparison.

A cell that two experiments select has a row in each, so a reader filters by experiment and
never joins. Accuracy of an immediate session is no measure of recall: its questions are
asked before the history that answers them is compacted, and the column says so.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from blockwise.config.experiments import SEQUENTIAL, QuestionTiming
from blockwise.tables import measures
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
from blockwise.tables.load import LoadedCell
from blockwise.tables.settings import settings_of

ACCURACY_KINDS = {
    QuestionTiming.IMMEDIATE: "immediate (not a recall measure)",
    QuestionTiming.DEFERRED: "deferred recall",
}
ROLES = ("agent", "worker", "question")

BACKBONE = text("backbone", "Name of the backbone in the configuration.")
DATASET = text("dataset", "Name of the dataset in the configuration.")
CELL_KEY = text("cell_key", "Content key of the cell: everything that can change its record.")
TIMING_BLOCK = text(
    "timing_block_id",
    "Timing block: all arms of one session and seed on one server start; times are compared "
    "inside one only. Empty for a recall cell.",
)
NUM_PARAMETERS = number(
    "num_parameters", "Total parameters of the backbone.", ColumnKind.EXACT, "parameters"
)
CAPTION = text("caption", "What every figure of this backbone must say, e.g. random weights.")
CELL_IDENTITY: tuple[Column, ...] = (BACKBONE, DATASET, CELL_KEY, TIMING_BLOCK)
BOUNDARY = text("boundary", "Where history blocks may be cut: turn or token.")
TAU = tokens("tau_tokens", "Trigger threshold of the rendered next request.")
TRANSCRIPT = text("transcript", "fixed: every arm replays the same answers; free: the model's own.")
VOLUME_MODE = text(
    "volume_mode", "forced: a fixed decode volume; natural: workers stop by themselves."
)
VOLUME_TOKENS = tokens(
    "volume_tokens", "Forced: decode volume V of one compaction; natural: cap of each worker."
)
ARM: tuple[Column, ...] = (
    text("arm", "sequential, or the layout of the parallel compaction."),
    text("layout", "How a worker's request shows its history block; empty for sequential."),
    tokens("block_size_tokens", "Configured history block size B; empty for sequential."),
)


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
    BACKBONE,
    NUM_PARAMETERS,
    DATASET,
    text("format", "Official schema of the dataset: hotpotqa or locomo."),
    CAPTION,
    CELL_KEY,
    text("session_id", "Session that the agent played."),
    count("seed", "Seed of sampling; the order of arms follows from the timing block.", unit=""),
    count("repeat", "Repeat of the same cell under the same seed.", unit=""),
    text("mode", "sequential or parallel compaction."),
    *ARM,
    BOUNDARY,
    TAU,
    text("question_timing", "immediate: asked in their turn; deferred: after the last turn."),
    TRANSCRIPT,
    count("num_verbatim_turns", "Last turns that a compaction leaves as they are."),
    tokens("answer_tokens", "Budget of one answer."),
    VOLUME_MODE,
    VOLUME_TOKENS,
    TIMING_BLOCK,
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
    *_token_columns("question", "deferred questions"),
    tokens("thinking_tokens", "Thinking tokens of all requests.", ColumnKind.SAMPLED),
    tokens(
        "total_tokens",
        "Total tokens spent: prompt and completion of all requests, cached included.",
        ColumnKind.SAMPLED,
    ),
    count("num_answers", "Questions answered."),
    text("accuracy_kind", "What the accuracy columns measure."),
    number(
        "exact_match_mean",
        "Mean exact match over the answers that have one by the official rules.",
        ColumnKind.SAMPLED,
        "1",
    ),
    count("num_exact_match", "Answers that have an exact match score."),
    number("f1_mean", "Mean official F1 over the answers.", ColumnKind.SAMPLED, "1"),
    count(
        "num_answers_evidence_compacted",
        "Answers whose evidence had been compacted once or more.",
        ColumnKind.SAMPLED,
    ),
    count("num_skipped_rows", "Malformed dataset rows left out of the whole dataset."),
    count(
        "num_preemptions",
        "Requests that the engine preempted; empty: it does not tell.",
        ColumnKind.TIMED,
    ),
    seconds("client_cpu_s", "CPU time of the client process."),
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


def build(cells: Sequence[LoadedCell]) -> pd.DataFrame:
    """One row a cell and experiment, in the order given."""
    return frame([_row(cell) for cell in cells], COLUMNS)


def cell_identity(cell: LoadedCell) -> dict[str, Any]:
    """Values of `CELL_IDENTITY`, for tables that are joined to this one."""
    return {
        "backbone": cell.backbone,
        "dataset": cell.dataset,
        "cell_key": cell.record.cell_key,
        "timing_block_id": cell.record.timing_block_id,
    }


def arm_values(cell: LoadedCell) -> dict[str, Any]:
    """Values of `ARM`."""
    arm = cell.record.arm
    return {
        "arm": arm,
        "layout": None if arm == SEQUENTIAL else arm,
        "block_size_tokens": cell.record.block_size_tokens,
    }


def _row(cell: LoadedCell) -> dict[str, Any]:
    record = cell.record
    is_timing = record.timing_block_id is not None
    reasons = record.timing_invalid_reasons if is_timing else ()
    return {
        "experiment": cell.experiment,
        "num_parameters": cell.num_parameters,
        "format": cell.format,
        "caption": cell.caption,
        "session_id": record.session_id,
        "seed": record.seed,
        "repeat": record.repeat,
        "mode": SEQUENTIAL if record.arm == SEQUENTIAL else "parallel",
        "position_in_timing_block": record.position_in_block,
        "timing_valid": record.timing_valid if is_timing else None,
        "timing_invalid_reasons": "; ".join(reasons) or None,
        "wall_s": record.wall_s,
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
        **cell_identity(cell),
        **arm_values(cell),
        **_settings(cell),
        **_compactions(cell),
        **_tokens(cell),
        **_accuracy(cell),
    }


def _settings(cell: LoadedCell) -> dict[str, Any]:
    settings = settings_of(cell.record)
    return {
        "boundary": settings.boundary,
        "tau_tokens": settings.tau_tokens,
        "question_timing": settings.question_timing,
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


def _accuracy(cell: LoadedCell) -> dict[str, Any]:
    answers = cell.record.answers
    matches = [answer.exact_match for answer in answers if answer.exact_match is not None]
    return {
        "num_answers": len(answers),
        "accuracy_kind": ACCURACY_KINDS[settings_of(cell.record).question_timing],
        "exact_match_mean": measures.mean_of(matches),
        "num_exact_match": len(matches),
        "f1_mean": measures.mean_of(answer.f1 for answer in answers),
        "num_answers_evidence_compacted": sum(
            answer.num_evidence_compactions > 0 for answer in answers
        ),
    }
