"""The compactor on its own: OpenAI messages in, OpenAI messages out.

What stays verbatim comes out as the very messages that went in, unknown fields and images
included; what is compacted becomes one message with the summaries. Workers are shown the text
and the tool calls of the messages and nothing else, because strict servers refuse fields they do
not know. A conversation that a server would refuse (a tool's result without its call) is refused
here, with the number of the message, before anything is sent. The prefix cache carries no salt:
the agent whose history this is may have filled it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from blockwise.compaction.compactor import Compaction, CompactionRule, Compactor
from blockwise.compaction.history import SYSTEM_ROLE, TOOL_ROLE, History, Turn
from blockwise.config.experiments import Boundary, VolumeMode
from blockwise.errors import CompactionError
from blockwise.models.renderer import Message, Renderer
from blockwise.serving.client import ChatRequest, Completion, EngineClient

DEVELOPER_ROLE = "developer"  # OpenAI's newer name of the system role; templates know the older
ROLES = frozenset({SYSTEM_ROLE, DEVELOPER_ROLE, "user", "assistant", TOOL_ROLE})
SENT_FIELDS = ("name", "tool_calls", "tool_call_id")
"""Fields beside role and content that every OpenAI-compatible server takes."""

PART_SEPARATOR = "\n"
"""Between the text parts of one content. Source: vLLM 0.32, renderers/chat_utils.py."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WorkerRecord(_Record):
    """One worker: what it read, what it wrote, how long it took."""

    block_tokens: int  # realised size of its history block
    rendered_prompt_tokens: int  # by our template and tokenizer
    prompt_tokens: int  # by the server's account
    cached_tokens: int | None  # None: the server does not report it
    completion_tokens: int  # thinking included
    thinking_tokens: int
    finish_reason: str
    start_s: float  # after the first worker's request was sent
    ttft_s: float
    wall_s: float
    retry_reasons: tuple[str, ...]


class MessagesRecord(_Record):
    """Volumes and times of one call; an unchanged history took none."""

    schema_version: Literal[1] = 1
    outcome: Literal["compacted", "unchanged"]
    reason: str  # of an unchanged history; else empty
    layout: str
    block_size_tokens: int | None  # None: sequential
    boundary: Boundary
    volume_mode: VolumeMode
    volume_tokens: int  # forced: total of all workers; natural: cap of each worker
    last_turns: int
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
    before_tokens = _history_tokens(history, renderer)
    if tau_tokens is not None and before_tokens <= tau_tokens:
        reason = f"a history of {before_tokens} tokens does not exceed tau, {tau_tokens}"
        compacted, after_tokens, volumes = list(messages), before_tokens, {}
    else:
        reason = ""
        _check_compactable(messages, history.compactable(rule.last_turns))
        compactor = Compactor(engine, renderer, rule)
        compaction = await compactor.compact(history, cache_salt=None, seed=seed)
        compacted = _replaced(messages, compaction)
        after_tokens = _history_tokens(compaction.history, renderer)
        volumes = _volumes(compaction, renderer)
    record = MessagesRecord(
        outcome="unchanged" if reason else "compacted",
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
        CompactionError: a worker wrote nothing, so its history block would vanish.
    """
    for number, worker in enumerate(compaction.workers):
        if not worker.text.strip():
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
        _worker_record(part.num_tokens, request, answer, renderer, first_s)
        for part, request, answer in zip(
            compaction.blocks, compaction.requests, compaction.workers, strict=True
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
        "wall_s": compaction.wall_s,
        "workers": tuple(workers),
    }


def _worker_record(
    block_tokens: int, request: ChatRequest, answer: Completion, renderer: Renderer, first_s: float
) -> WorkerRecord:
    return WorkerRecord(
        block_tokens=block_tokens,
        rendered_prompt_tokens=renderer.count(request.messages, add_generation_prompt=True),
        prompt_tokens=answer.prompt_tokens,
        cached_tokens=answer.cached_tokens,
        completion_tokens=answer.completion_tokens,
        thinking_tokens=answer.thinking_tokens,
        finish_reason=answer.finish_reason,
        start_s=answer.started_at_s - first_s,
        ttft_s=answer.ttft_s,
        wall_s=answer.wall_s,
        retry_reasons=answer.retry_reasons,
    )
