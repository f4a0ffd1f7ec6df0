"""The record of one call of the compactor: what was done, with volumes and times."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from blockwise.compaction.compactor import Compaction, text_of
from blockwise.compaction.history import History
from blockwise.compaction.identifiers import survival
from blockwise.config.choices import Boundary, SummaryFault, VolumeMode
from blockwise.models.renderer import CountedBy, Renderer
from blockwise.serving.client import ChatRequest, Completion


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Outcome(StrEnum):
    """What a call came to."""

    COMPACTED = "compacted"
    UNCHANGED = "unchanged"  # it does not exceed tau
    CANNOT_SHRINK = "cannot_shrink"  # what would stand in its place is not smaller
    FAILED = "failed"  # a worker did for good; nothing is changed, and what others wrote is kept


class WorkerRecord(_Record):
    """One worker: what it read, what it wrote, how long it took."""

    block_tokens: int  # realised size of its history block
    rendered_prompt_tokens: int  # by our template and tokenizer
    prompt_tokens: int  # by the server's account
    cached_tokens: int | None  # None: the server does not report it
    completion_tokens: int  # thinking included
    thinking_tokens: int
    finish_reason: str
    fault: SummaryFault | None  # accepted by the rule; None: it is a summary
    start_s: float  # after the first worker's request was sent
    ttft_s: float
    wall_s: float
    retry_reasons: tuple[str, ...]


class MessagesRecord(_Record):
    """Volumes and times of one call; an unchanged history took none."""

    schema_version: Literal[3] = 3
    outcome: Outcome
    reason: str  # of a history that comes out as it went in; else empty
    counted_by: CountedBy
    layout: str  # that of the rule, also where pieces are shown
    block_size_tokens: int | None  # None: sequential
    boundary: Boundary
    volume_mode: VolumeMode
    volume_tokens: int  # forced: total of all workers; natural: cap of each worker
    last_turns: int  # verbatim messages at the end: those asked for, and one that waits
    max_concurrent_workers: int | None  # None: all at once
    tau_tokens: int | None  # None: compacts whatever the length
    num_messages_before: int
    num_messages_after: int
    num_unread_parts: int  # of what comes out: images and the like, counted as placeholders
    num_placeholders: int  # of what was compacted: workers read `[image]` in their place
    repairs: tuple[str, ...]  # of tool rounds that were not whole
    history_before_tokens: int
    history_after_tokens: int
    exceeds_tau: bool  # the history that comes out still does
    is_split: bool = False  # into pieces, because nothing longer fits the window
    num_blocks: int = 0
    block_tokens: tuple[int, ...] = ()
    input_tokens: int = 0
    output_tokens: int = 0  # thinking included
    thinking_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int | None = 0  # None: not reported for every worker
    uncached_tokens: int | None = 0
    num_length_finishes: int = 0
    num_retried_workers: int = 0
    num_refused_answers: int = 0  # no summaries, asked for again
    refused_tokens: int = 0  # decoded by them
    num_identifiers: int = 0  # distinct ones of what was compacted (compaction/identifiers.py)
    num_identifiers_kept: int = 0  # those that stand in the message that replaces it
    wall_s: float = 0.0  # first request sent to last answer complete
    stall_s: float  # the whole call, client work included
    workers: tuple[WorkerRecord, ...] = ()


def volumes_of(history: History, compaction: Compaction, renderer: Renderer) -> dict[str, Any]:
    """What a compaction adds to a record."""
    first_s = min(worker.started_at_s for worker in compaction.workers)
    workers = [
        _worker_record(part.num_tokens, request, (answer, fault), renderer, first_s)
        for part, request, answer, fault in zip(
            compaction.blocks,
            compaction.requests,
            compaction.workers,
            compaction.faults,
            strict=True,
        )
    ]
    prompt_tokens = sum(worker.prompt_tokens for worker in workers)
    cached = [worker.cached_tokens for worker in workers if worker.cached_tokens is not None]
    cached_tokens = sum(cached) if len(cached) == len(workers) else None
    wrapper = compaction.history.turns[compaction.turn_range[0]]
    found = survival(text_of(history, compaction.turn_range), wrapper.text)
    return {
        "num_blocks": len(compaction.blocks),
        "block_tokens": tuple(part.num_tokens for part in compaction.blocks),
        "input_tokens": sum(part.num_tokens for part in compaction.blocks),
        "output_tokens": sum(worker.completion_tokens for worker in workers),
        "thinking_tokens": sum(worker.thinking_tokens for worker in workers),
        "prompt_tokens": prompt_tokens,
        "cached_tokens": cached_tokens,
        "uncached_tokens": None if cached_tokens is None else prompt_tokens - cached_tokens,
        "num_length_finishes": sum(worker.finish_reason == "length" for worker in workers),
        "num_retried_workers": sum(bool(worker.retry_reasons) for worker in workers),
        "num_refused_answers": len(compaction.refused),
        "refused_tokens": sum(answer.completion_tokens for answer in compaction.refused),
        "num_identifiers": found.num_identifiers,
        "num_identifiers_kept": found.num_kept,
        "wall_s": compaction.wall_s,
        "workers": tuple(workers),
    }


def _worker_record(
    block_tokens: int,
    request: ChatRequest,
    answered: tuple[Completion, SummaryFault | None],
    renderer: Renderer,
    first_s: float,
) -> WorkerRecord:
    answer, fault = answered
    return WorkerRecord(
        block_tokens=block_tokens,
        rendered_prompt_tokens=renderer.count(request.messages, add_generation_prompt=True),
        prompt_tokens=answer.prompt_tokens,
        cached_tokens=answer.cached_tokens,
        completion_tokens=answer.completion_tokens,
        thinking_tokens=answer.thinking_tokens,
        finish_reason=answer.finish_reason,
        fault=fault,
        start_s=answer.started_at_s - first_s,
        ttft_s=answer.ttft_s,
        wall_s=answer.wall_s,
        retry_reasons=answer.retry_reasons,
    )
