"""A conversation as a document in JSON: a list of messages, or an object that holds one."""

import json
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from blockwise.compaction.conversation import check_messages
from blockwise.errors import CompactionError
from blockwise.models.renderer import Message

MESSAGES_KEY = "messages"
TOOLS_KEY = "tools"


class ToolFunction(BaseModel):
    """What a model may call; schema and description are the template's business."""

    model_config = ConfigDict(extra="allow")

    name: str


class Tool(BaseModel):
    """A tool of an OpenAI request."""

    model_config = ConfigDict(extra="allow")

    type: Literal["function"]
    function: ToolFunction


@dataclass(frozen=True)
class Conversation:
    """What stood on standard input."""

    document: Any  # the list of messages, or the object that holds it

    @property
    def messages(self) -> list[Message]:
        """The messages."""
        is_object = isinstance(self.document, dict)
        return list(self.document[MESSAGES_KEY] if is_object else self.document)

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The tools of the agent's requests, where the document names them."""
        return list(self.document.get(TOOLS_KEY) or ()) if isinstance(self.document, dict) else []

    def with_messages(self, messages: list[Message]) -> Any:
        """The same document with other messages."""
        if isinstance(self.document, dict):
            return {**self.document, MESSAGES_KEY: messages}
        return messages


def read_conversation(content: bytes) -> Conversation:
    """Parse and check standard input.

    Raises:
        CompactionError: it is no JSON, no list of messages, or no conversation.
    """
    try:
        document = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CompactionError(
            f"standard input ({len(content)} bytes) is not JSON in UTF-8: {error}; give a list of "
            "OpenAI chat messages"
        ) from error
    messages = document.get(MESSAGES_KEY) if isinstance(document, dict) else document
    if not isinstance(messages, list):
        raise CompactionError(
            "standard input holds no list of messages; give a JSON list of OpenAI chat messages, "
            f"or an object with one under {MESSAGES_KEY!r}"
        )
    check_messages(messages)
    conversation = Conversation(document)
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise CompactionError(
            f"the object beside its messages holds half a character ({error.reason}); take it out"
        ) from error
    try:
        TypeAdapter(list[Tool]).validate_python(conversation.tools)
    except ValidationError as error:
        raise CompactionError(
            f"{TOOLS_KEY!r} is no list of OpenAI tools: {error.errors()[0]['msg']}; give what the "
            "agent sends, each with a function and its name"
        ) from error
    return conversation


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")
