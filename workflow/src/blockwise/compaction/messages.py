"""The compactor on its own: OpenAI messages in, OpenAI messages out.

What stays verbatim comes out as the very messages that went in, unknown fields and images
included; a last message of the user's, which nobody has answered, always stays. What is compacted
becomes one message with the summaries, and only if that makes the history shorter. Workers are
shown the text and the tool calls of the messages and nothing else, because strict servers refuse
fields they do not know. A conversation that a server would refuse (a tool's result without its
call) is refused here, with the number of the message, before anything is sent. The prefix cache
carries no salt: the agent whose history this is may have filled it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from blockwise.compaction.acceptance import summary_of
from blockwise.compaction.compactor import (
    Compaction,
    CompactionRule,
    Compactor,
    replace_by_summaries,
)
from blockwise.compaction.history import SYSTEM_ROLE, TOOL_ROLE, History, Turn
from blockwise.config.experiments import Boundary, SummaryFault, VolumeMode
from blockwise.errors import CompactionError
from blockwise.models.renderer import Message, Renderer
from blockwise.serving.client import ChatRequest, Completion, EngineClient

USER_ROLE = "user"
DEVELOPER_ROLE = "developer"  # OpenAI's newer name of the system role; templates know the older
ROLES = frozenset({SYSTEM_ROLE, DEVELOPER_ROLE, USER_ROLE, "assistant", TOOL_ROLE})
SENT_FIELDS = ("name", "tool_calls", "tool_call_id")
"""Fields beside role and content that every OpenAI-compatible server takes."""

PART_SEPARATOR = "\n"
"""Between the text parts of one content. Source: vLLM 0.32, renderers/chat_utils.py."""


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
    num_unread_parts: int  # parts that are no text, all of them verbatim; in no token count
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
) -> CompactedMessages:
    """Replace everything but the verbatim part of a conversation by summaries of it.

    Args:
        engine: the client of the server that summarises.
        renderer: template and tokenizer of the model that it serves.
        messages: OpenAI chat messages; neither the list nor a message is changed.
        rule: layout, block size, volume, prompt, verbatim turns.
        tau_tokens: a history of at most so many tokens is left as it is; None compacts any.
        seed: workers sample with seeds derived from it.

    Raises:
        CompactionError: the messages are no conversation, nothing is left to compact, what is
            to be compacted holds images or unanswered tool calls, or a worker failed.
        EngineError: the chat template refuses the conversation.
    """
    begin_s = time.perf_counter()
    history = read_history(messages)
    waits = messages[-1]["role"] == USER_ROLE
    rule = replace(rule, last_turns=max(rule.last_turns, int(waits)))
    before_tokens = _history_tokens(history, renderer)
    reason = _reason_to_leave(history, before_tokens, rule, tau_tokens, renderer)
    if reason is None:
        _check_compactable(messages, history.compactable(rule.last_turns))
        compactor = Compactor(engine, renderer, rule)
        compaction = await compactor.compact(history, cache_salt=None, seed=seed)
        volumes = _volumes(compaction, renderer)
        compacted = _replaced(messages, compaction)
        after_tokens = _history_tokens(compaction.history, renderer)
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
        num_unread_parts=sum(len(_unread_parts(message)) for message in compacted),
        history_before_tokens=before_tokens,
        history_after_tokens=after_tokens,
        exceeds_tau=tau_tokens is not None and after_tokens > tau_tokens,
        stall_s=time.perf_counter() - begin_s,
        **volumes,
    )
    return CompactedMessages(compacted, record)


def _reason_to_leave(
    history: History,
    tokens: int,
    rule: CompactionRule,
    tau_tokens: int | None,
    renderer: Renderer,
) -> str | None:
    """Why nothing needs to be sent: the history is short enough, or nothing can make it so."""
    if tau_tokens is None:
        return None
    if tokens <= tau_tokens:
        return f"a history of {tokens} tokens does not exceed tau, {tau_tokens}"
    start, stop = history.compactable(rule.last_turns)
    if start >= stop:
        return None  # the compactor says so
    kept = _history_tokens(replace_by_summaries(history, (start, stop), [""]), renderer)
    least_tokens = kept + (rule.volume_tokens if rule.volume_mode is VolumeMode.FORCED else 0)
    if least_tokens <= tau_tokens:
        return None
    return (
        f"what stays verbatim and the marks around summaries take {least_tokens} tokens, tau is "
        f"{tau_tokens}; raise tau or keep fewer messages verbatim"
    )


def read_history(messages: Sequence[Message]) -> History:
    """The text of a conversation, checked to be one that a chat server takes.

    Raises:
        CompactionError: there is no message, one has no role, its content is neither text nor a
            list of parts, or a tool's result has no call that it answers.
    """
    if not messages:
        raise CompactionError("there is no message; give at least one beside the system prompt")
    for number, message in enumerate(messages):
        _check_message(number, message)
    _check_results(messages)
    return History(tuple(_turn(message) for message in messages))


def _check_message(number: int, message: Any) -> None:
    if not isinstance(message, dict):
        raise CompactionError(
            f"messages[{number}] is {type(message).__name__}; give an object with role and content"
        )
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise CompactionError(
            f"messages[{number}]: the role is {role!r}; give one of {', '.join(sorted(ROLES))}"
        )
    content = message.get("content")
    is_parts = isinstance(content, list) and all(isinstance(part, dict) for part in content)
    if not (content is None or isinstance(content, str) or is_parts):
        raise CompactionError(
            f"messages[{number}]: content is {type(content).__name__}; give text or a list of parts"
        )
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list) or not all(
        isinstance(call, dict) and isinstance(call.get("id"), str) for call in calls
    ):
        raise CompactionError(
            f"messages[{number}]: tool_calls is no list of calls with an id each; give every call "
            "the id that its result names"
        )


def _check_results(messages: Sequence[Message]) -> None:
    """Every tool's result stands behind its call, with nothing but other results between."""
    open_calls: set[str] = set()
    for number, message in enumerate(messages):
        if message["role"] != TOOL_ROLE:
            open_calls = {call["id"] for call in message.get("tool_calls") or ()}
            continue
        answered = message.get("tool_call_id")
        if not isinstance(answered, str) or answered not in open_calls:
            raise CompactionError(
                f"messages[{number}]: the tool's result for call {answered!r} does not follow an "
                "assistant message with that call; add the call or leave the result out"
            )
        open_calls.remove(answered)


def _check_compactable(messages: Sequence[Message], turn_range: tuple[int, int]) -> None:
    """Nothing in the turns [start, stop) would be lost unread or torn apart."""
    start, stop = turn_range
    unanswered: set[str] = set()
    for number in range(start, stop):
        message = messages[number]
        kinds = sorted({str(part.get("type")) for part in _unread_parts(message)})
        if kinds:
            raise CompactionError(
                f"messages[{number}] is to be compacted and holds {', '.join(kinds)}, which cannot "
                "be summarised as text; keep it verbatim (more last turns) or take the part out"
            )
        if message["role"] == TOOL_ROLE:
            unanswered.discard(message["tool_call_id"])
        elif unanswered:
            break
        else:
            unanswered = {call["id"] for call in message.get("tool_calls") or ()}
    if unanswered:
        raise CompactionError(
            f"the results of tool calls {', '.join(sorted(unanswered))} are missing from what is "
            "to be compacted; add them, or keep the calls verbatim (more last turns)"
        )


def _unread_parts(message: Message) -> list[dict[str, Any]]:
    """Parts of a content that are no text."""
    content = message.get("content")
    if not isinstance(content, list):
        return []
    return [
        part
        for part in content
        if part.get("type") != "text" or not isinstance(part.get("text"), str)
    ]


def _turn(message: Message) -> Turn:
    """What workers are shown of a message."""
    content = message.get("content") or ""
    if isinstance(content, list):
        unread = _unread_parts(message)
        content = PART_SEPARATOR.join(part["text"] for part in content if part not in unread)
    role = SYSTEM_ROLE if message["role"] == DEVELOPER_ROLE else message["role"]
    sent = {key: message[key] for key in SENT_FIELDS if message.get(key)}
    return Turn.from_message({"role": role, "content": content, **sent})


def _history_tokens(history: History, renderer: Renderer) -> int:
    return renderer.count(history.messages(), add_generation_prompt=False)


def _replaced(messages: Sequence[Message], compaction: Compaction) -> list[Message]:
    """The messages with the wrapper in place of what was summarised.

    Raises:
        CompactionError: a worker of forced volume wrote nothing, so its history block would vanish.
    """
    answered = zip(compaction.workers, compaction.faults, strict=True)
    for number, (worker, fault) in enumerate(answered):
        if fault is None and not summary_of(worker):
            raise CompactionError(
                f"worker {number} of {len(compaction.workers)} wrote no summary "
                f"({worker.completion_tokens} tokens, {worker.thinking_tokens} of them thinking, "
                f"finish reason {worker.finish_reason}); raise the volume or change the prompt"
            )
    start, stop = compaction.turn_range
    return [*messages[:start], compaction.history.turns[start].message(), *messages[stop:]]


def _volumes(compaction: Compaction, renderer: Renderer) -> dict[str, Any]:
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
