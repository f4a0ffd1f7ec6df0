"""The compactor on its own: OpenAI messages in, OpenAI messages out.

What stays verbatim comes out as the very messages that went in, unknown fields and images
included; a last message of the user's, which nobody has answered, always stays. What is compacted
becomes one message with the summaries, and only if that makes the history shorter. The prefix
cache carries no salt: the agent whose history this is may have filled it.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from blockwise.compaction.acceptance import summary_of
from blockwise.compaction.compactor import (
    Compaction,
    CompactionRule,
    Compactor,
    carried_summary,
    replace_by_summaries,
    text_of,
)
from blockwise.compaction.conversation import (
    USER_ROLE,
    OnBrokenTools,
    OnMedia,
    Pin,
    check_compactable,
    check_messages,
    merged_user_runs,
    pinned_in,
    pins_system_messages,
    plain_messages,
    read_history,
    unread_parts,
)
from blockwise.compaction.history import History
from blockwise.compaction.identifiers import survival
from blockwise.compaction.tool_repair import repair_tool_rounds
from blockwise.config.experiments import Boundary, SummaryFault, VolumeMode
from blockwise.errors import CompactionError
from blockwise.models.renderer import Message, Renderer
from blockwise.serving.client import ChatRequest, Completion, EngineClient


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Outcome(StrEnum):
    """What a call came to."""

    COMPACTED = "compacted"
    UNCHANGED = "unchanged"  # it does not exceed tau
    CANNOT_SHRINK = "cannot_shrink"  # what would stand in its place is not smaller


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

    schema_version: Literal[2] = 2
    outcome: Outcome
    reason: str  # of a history that comes out as it went in; else empty
    layout: str
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


@dataclass(frozen=True)
class CompactedMessages:
    """The new conversation and what it took."""

    messages: list[Message]
    record: MessagesRecord


async def compact_messages(
    engine: EngineClient,
    renderer: Renderer,
    messages: Sequence[Message],
    rule: CompactionRule,
    *,
    tau_tokens: int | None = None,
    seed: int = 0,
    pin: Pin = pins_system_messages,
    tools: Sequence[Mapping[str, Any]] = (),
    on_media: OnMedia = OnMedia.PLACEHOLDER,
    on_broken_tools: OnBrokenTools = OnBrokenTools.REFUSE,
) -> CompactedMessages:
    """Replace everything but the verbatim part of a conversation by summaries of it.

    Args:
        engine: the client of the server that summarises.
        renderer: template and tokenizer of the model that it serves.
        messages: OpenAI chat messages, or objects of the `openai` package; neither the list nor a
            message is changed.
        rule: layout, block size, volume, prompt, verbatim turns.
        tau_tokens: a history of at most so many tokens is left as it is; None compacts any.
        seed: workers sample with seeds derived from it.
        pin: which messages stay as they are, in their order, behind the summaries; workers read
            them with the rest. By default system and developer messages.
        tools: those of the agent's own requests, in its order: workers are sent the same, so that
            their prompts begin as the agent's do, and are told to call none. Counted everywhere.
        on_media: what becomes of images, audio and files that are to be summarised.
        on_broken_tools: what becomes of results without calls and calls without results; repaired
            ones are part of what comes out.

    Raises:
        CompactionError: the messages are no conversation, nothing is left to compact, what is
            to be compacted holds unanswered tool calls, or media that are refused, or a
            worker failed.
        EngineError: the chat template refuses the conversation.
    """
    begin_s = time.perf_counter()
    if tools:
        engine, renderer = engine.with_tools(tools), renderer.with_tools(tools)
    messages = plain_messages(messages)
    repairs: tuple[str, ...] = ()
    if on_broken_tools is OnBrokenTools.REPAIR:
        check_messages(messages)
        repaired = repair_tool_rounds(messages)
        messages, repairs = repaired.messages, repaired.repairs
    history = read_history(messages)
    waits = messages[-1]["role"] == USER_ROLE
    rule = replace(rule, last_turns=max(rule.last_turns, int(waits)))
    given = _Given(messages, history, rule, pin, renderer)
    before_tokens = given.num_tokens
    reason = given.reason_to_leave(tau_tokens)
    if reason is None:
        check_compactable(messages, given.turn_range, on_media)
        given.tokens_with(["words"])  # a template that refuses what comes out does so now
        compactor = Compactor(engine, renderer, rule)
        compaction = await compactor.compact(history, cache_salt=None, seed=seed)
        volumes = _volumes(history, compaction, renderer)
        _refuse_blanks(compaction)
        compacted = given.replaced(compaction.history)
        after_tokens = given.tokens_of(compacted)
        outcome, reason = Outcome.COMPACTED, ""
        if after_tokens >= before_tokens:
            outcome = Outcome.CANNOT_SHRINK
            reason = (
                f"summaries would make {after_tokens} tokens of {before_tokens}; lower the volume, "
                "ask for less or compact a longer history"
            )
            compacted, after_tokens = list(messages), before_tokens
    else:
        outcome = Outcome.UNCHANGED if before_tokens <= (tau_tokens or 0) else Outcome.CANNOT_SHRINK
        compacted, after_tokens, volumes = list(messages), before_tokens, {}
    record = MessagesRecord(
        outcome=outcome,
        reason=reason,
        layout=rule.layout,
        block_size_tokens=rule.block_size_tokens,
        boundary=rule.boundary,
        volume_mode=rule.volume_mode,
        volume_tokens=rule.volume_tokens,
        last_turns=rule.last_turns,
        max_concurrent_workers=rule.max_concurrent_workers,
        tau_tokens=tau_tokens,
        num_messages_before=len(messages),
        num_messages_after=len(compacted),
        num_unread_parts=_num_unread(compacted),
        repairs=repairs,
        num_placeholders=_num_unread(messages) - _num_unread(compacted),
        history_before_tokens=before_tokens,
        history_after_tokens=after_tokens,
        exceeds_tau=tau_tokens is not None and after_tokens > tau_tokens,
        stall_s=time.perf_counter() - begin_s,
        **volumes,
    )
    return CompactedMessages(compacted, record)


@dataclass(frozen=True)
class _Given:
    """A conversation that is to be compacted, and how."""

    messages: Sequence[Message]
    history: History
    rule: CompactionRule
    pin: Pin
    renderer: Renderer

    @property
    def num_tokens(self) -> int:
        """Rendered tokens of it, generation prompt excluded."""
        return self.renderer.count(self.history.messages(), add_generation_prompt=False)

    @property
    def turn_range(self) -> tuple[int, int]:
        """Messages [start, stop) that the summaries replace, but for those that are pinned."""
        return self.history.compactable(self.rule.last_turns)

    def replaced(self, shorter: History) -> list[Message]:
        """The messages with the wrapper of a shorter history, and what is pinned behind it."""
        start, stop = self.turn_range
        pinned = pinned_in(self.messages, self.turn_range, self.pin)
        wrapper = shorter.turns[start].message()
        replaced = [*self.messages[:start], wrapper, *pinned, *self.messages[stop:]]
        return replaced if self.renderer.takes_user_runs else merged_user_runs(replaced)

    def tokens_of(self, messages: Sequence[Message]) -> int:
        """Rendered tokens of what comes out.

        Raises:
            EngineError: the chat template refuses it.
        """
        shown = read_history(messages).messages()
        return self.renderer.count(shown, add_generation_prompt=False)

    def tokens_with(self, summaries: Sequence[str]) -> int:
        """The same if these were the summaries."""
        shorter = replace_by_summaries(self.history, self.turn_range, summaries)
        return self.tokens_of(self.replaced(shorter))

    def reason_to_leave(self, tau_tokens: int | None) -> str | None:
        """Why nothing needs to be sent: it is short enough, or nothing can make it so."""
        if tau_tokens is None:
            return None
        if self.num_tokens <= tau_tokens:
            return f"a history of {self.num_tokens} tokens does not exceed tau, {tau_tokens}"
        start, stop = self.turn_range
        if start >= stop:
            return None  # the compactor says so
        carries = self.rule.carries_summaries
        carried = carried_summary(self.history, self.turn_range) if carries else None
        least_tokens = self.tokens_with([carried or ""])
        if self.rule.volume_mode is VolumeMode.FORCED:
            least_tokens += self.rule.volume_tokens
        if least_tokens <= tau_tokens:
            return None
        return (
            f"what stays verbatim and the marks around summaries take {least_tokens} tokens, tau "
            f"is {tau_tokens}; raise tau or keep fewer messages verbatim"
        )


def _num_unread(messages: Sequence[Message]) -> int:
    return sum(len(unread_parts(message)) for message in messages)


def _refuse_blanks(compaction: Compaction) -> None:
    """Refuse a worker of forced volume that wrote nothing: its history block would vanish.

    Raises:
        CompactionError: there is one.
    """
    answered = zip(compaction.workers, compaction.faults, strict=True)
    for number, (worker, fault) in enumerate(answered):
        if fault is None and not summary_of(worker):
            raise CompactionError(
                f"worker {number} of {len(compaction.workers)} wrote no summary "
                f"({worker.completion_tokens} tokens, {worker.thinking_tokens} of them thinking, "
                f"finish reason {worker.finish_reason}); raise the volume or change the prompt"
            )


def _volumes(history: History, compaction: Compaction, renderer: Renderer) -> dict[str, Any]:
    """What a compaction adds to the record."""
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
