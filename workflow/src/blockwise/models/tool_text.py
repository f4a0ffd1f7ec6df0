"""Tool rounds in words, for templates that leave calls or results out of what the model reads.

Such a template takes an agent's file of a hundred thousand characters and writes nothing of it.
"""

import json
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]

PART_SEPARATOR = "\n"
"""Between the text parts of one content. Source: vLLM 0.32, renderers/chat_utils.py."""


def called(name: object, arguments: object) -> str:
    """A call in words."""
    return f"[calls {name}({arguments or ''})]"


def in_words(messages: Sequence[Message]) -> list[Message]:
    """The messages with calls in the text of their message, and results as the user's text.

    The results of one round share a message, because strict templates want alternation.
    """
    said: list[Message] = []
    is_result = False
    for message in messages:
        follows_result, is_result = is_result, message["role"] == "tool"
        if is_result:
            text = f"[result of {message.get('tool_call_id', 'a tool')}]\n{message['content']}"
            if follows_result:
                said[-1] = {**said[-1], "content": f"{said[-1]['content']}\n\n{text}"}
            else:
                said.append({"role": "user", "content": text})
        elif message.get("tool_calls"):
            calls = (_in_words(call) for call in message["tool_calls"])
            parts = [str(message.get("content") or ""), *calls]
            text = PART_SEPARATOR.join(part for part in parts if part)
            rest = {key: value for key, value in message.items() if key != "tool_calls"}
            said.append({**rest, "content": text})
        else:
            said.append(message)
    return said


def _in_words(call: Message) -> str:
    function = call.get("function") or call.get("custom") or {}
    arguments = function.get("arguments", function.get("input"))
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return f"{called(function.get('name'), text)} as {call.get('id')}"


def round_that_shows() -> tuple[list[Message], tuple[str, ...]]:
    """A conversation with a tool round, and the texts that a template must write of it."""
    texts = ("lookup_probe", "argument_probe", "result_probe")
    name, argument, result = texts
    function = {"name": name, "arguments": {"place": argument}}
    call = {"id": "callprobe", "type": "function", "function": function}
    return [
        {"role": "user", "content": "Look it up."},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "callprobe", "content": result},
    ], texts
