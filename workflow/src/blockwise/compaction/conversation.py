"""Conversations of others: OpenAI chat messages, checked, and as the text that workers are shown.

Workers are shown the text and the tool calls of the messages and nothing else, because strict
servers refuse fields they do not know. A conversation that a server would refuse (a tool's result
without its call) is refused here, with the number of the message, before anything is sent.
"""

import json
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, TypeAdapter, ValidationError, model_validator

from blockwise.compaction.history import SYSTEM_ROLE, TOOL_ROLE, History, Turn
from blockwise.errors import CompactionError
from blockwise.models.renderer import Message
from blockwise.models.round_template import rounds
from blockwise.models.tool_text import PART_SEPARATOR, called

USER_ROLE = "user"
DEVELOPER_ROLE = "developer"  # OpenAI's newer name of the system role; templates know the older
ROLES = frozenset({SYSTEM_ROLE, DEVELOPER_ROLE, USER_ROLE, "assistant", TOOL_ROLE})
SENT_FIELDS = ("name", "tool_calls", "tool_call_id")
"""Fields beside role and content that every OpenAI-compatible server takes."""

TEXT_PARTS = ("text", "refusal")  # each holds its text under its own name
MEDIA_WORDS = {"image_url": "image", "input_audio": "audio", "file": "file"}


class _Function(BaseModel):
    name: str


class _Call(BaseModel):
    id: str
    function: _Function | None = None
    custom: _Function | None = None

    @model_validator(mode="after")
    def _is_of_a_kind(self) -> Self:
        if self.function is None and self.custom is None:
            raise ValueError("it names no function")
        return self


CALLS = TypeAdapter(list[_Call] | None)


class OnMedia(StrEnum):
    """What becomes of parts of a content that are no text where they are to be summarised."""

    PLACEHOLDER = "placeholder"  # workers read `[image]`; the record counts them
    REFUSE = "refuse"


class OnBrokenTools(StrEnum):
    """What becomes of tool rounds that are not whole (blockwise.compaction.tool_repair)."""

    REFUSE = "refuse"
    REPAIR = "repair"


RUN_SEPARATOR = "\n\n"


def merged_user_runs(messages: Sequence[Message]) -> list[Message]:
    """The messages with neighbours of the user's in one, for templates that want alternation."""
    merged: list[Message] = []
    for message in messages:
        is_text = message["role"] == USER_ROLE and isinstance(message.get("content"), str)
        last = merged[-1] if merged else None
        if is_text and last and last["role"] == USER_ROLE and isinstance(last["content"], str):
            text = f"{last['content']}{RUN_SEPARATOR}{message['content']}"
            merged[-1] = {**message, "content": text}
        else:
            merged.append(message)
    return merged


Pin = Callable[[int, Message], bool]
"""Whether a message, by its place and itself, stays as it is wherever it stands."""


def pins_system_messages(_place: int, message: Message) -> bool:
    """System and developer messages: as a user's text their orders would weigh less."""
    return message["role"] in {SYSTEM_ROLE, DEVELOPER_ROLE}


def pinned_in(messages: Sequence[Message], turn_range: tuple[int, int], pin: Pin) -> list[Message]:
    """The messages of the range [start, stop) that stay; a tool round stays or goes as a whole."""
    start, stop = turn_range
    return [
        message
        for begin, end in rounds(messages[:stop], start)
        if any(pin(place, messages[place]) for place in range(begin, end))
        for message in messages[begin:end]
    ]


def plain_messages(messages: Sequence[Any]) -> list[Message]:
    """The messages as dictionaries: those of the `openai` package are objects of Pydantic's."""
    return [
        message.model_dump(exclude_none=True) if isinstance(message, BaseModel) else message
        for message in messages
    ]


def copied(messages: Sequence[Message]) -> list[Message]:
    """The messages as dictionaries of their own, beside which later changes of them are seen."""
    return [dict(message) if isinstance(message, dict) else message for message in messages]


def check_messages(messages: Sequence[Message]) -> None:
    """Refuse what is no list of chat messages.

    Raises:
        CompactionError: there is no message, one has no role, or its content is neither text nor
            a list of parts.
    """
    if not messages:
        raise CompactionError("there is no message; give at least one beside the system prompt")
    for number, message in enumerate(messages):
        _check_message(number, message)


def read_history(messages: Sequence[Message]) -> History:
    """The text of a conversation, checked to be one that a chat server takes.

    Raises:
        CompactionError: as `check_messages`, or a tool's result has no call that it answers.
    """
    check_messages(messages)
    _check_results(messages)
    return History(tuple(_turn(message) for message in messages))


def _check_message(number: int, message: Any) -> None:
    if not isinstance(message, dict):
        raise CompactionError(
            f"messages[{number}] is {type(message).__name__}; give an object with role and content"
        )
    _check_texts(number, message)
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
    try:
        CALLS.validate_python(message.get("tool_calls"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise CompactionError(
            f"messages[{number}]: tool_calls is no list of calls with an id each and a function's "
            f"name: {where}: {first['msg']}; give every call the id that its result names"
        ) from error


def _check_texts(number: int, message: Message) -> None:
    """Refuse what no server takes; a plain text, which most messages are, is not serialised."""
    content, calls = message.get("content"), message.get("tool_calls")
    try:
        if isinstance(content, str) and not calls:
            content.encode()
        else:
            json.dumps([content, calls], ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise CompactionError(
            f"messages[{number}] holds half a character (a lone surrogate), which no server takes, "
            f"after {error.object[max(0, error.start - 20) : error.start]!r}; take it out"
        ) from error
    except (TypeError, ValueError) as error:
        raise CompactionError(
            f"messages[{number}] is no JSON: {error}; give plain dictionaries, lists and texts"
        ) from error


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
                "assistant message with that call; add the call, leave the result out, or have it "
                "repaired (on_broken_tools)"
            )
        open_calls.remove(answered)


def check_compactable(
    messages: Sequence[Message], turn_range: tuple[int, int], on_media: OnMedia
) -> None:
    """Refuse turns [start, stop) that would tear a tool round apart, or media where asked.

    Raises:
        CompactionError: there is one.
    """
    start, stop = turn_range
    unanswered: set[str] = set()
    for number in range(start, stop):
        message = messages[number]
        kinds = sorted({str(part.get("type")) for part in unread_parts(message)})
        if kinds and on_media is OnMedia.REFUSE:
            raise CompactionError(
                f"messages[{number}] is to be compacted and holds {', '.join(kinds)}, which cannot "
                "be summarised as text; keep it verbatim (more last turns), take the part out, or "
                "let a placeholder stand for it (on_media)"
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


def unread_parts(message: Message) -> list[dict[str, Any]]:
    """Parts of a content that are no text."""
    content = message.get("content")
    if not isinstance(content, list):
        return []
    return [
        part
        for part in content
        if part.get("type") not in TEXT_PARTS or not isinstance(part.get(part["type"]), str)
    ]


def _turn(message: Message) -> Turn:
    """What workers are shown of a message."""
    role = SYSTEM_ROLE if message["role"] == DEVELOPER_ROLE else message["role"]
    sent = {key: message[key] for key in SENT_FIELDS if message.get(key)}
    return Turn.from_message({"role": role, "content": shown_text(message), **sent})


def shown_text(message: Message) -> str:
    """All text of a message: that of its parts, and what older and newer fields say in words."""
    content = message.get("content") or ""
    texts = [content] if isinstance(content, str) else list(map(_part_text, content))
    call, audio = message.get("function_call"), message.get("audio")
    if isinstance(call, dict):
        texts.append(called(call.get("name"), call.get("arguments")))
    if isinstance(audio, dict) and audio.get("transcript"):
        texts.append(str(audio["transcript"]))
    if isinstance(message.get("refusal"), str):
        texts.append(message["refusal"])
    return PART_SEPARATOR.join(text for text in texts if text)


def _part_text(part: dict[str, Any]) -> str:
    """A part's text, that of a refusal included, or what stands for it."""
    kind = str(part.get("type"))
    text = part.get(kind) if kind in TEXT_PARTS else None
    return text if isinstance(text, str) else f"[{MEDIA_WORDS.get(kind, kind)}]"
