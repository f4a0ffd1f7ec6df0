"""Broken tool rounds made whole: a conversation that was interrupted or cut becomes one again.

Nothing that was said is dropped but a second result of one call. A result without its call becomes
a message of the user's, behind the round in which it stood; a call that the conversation went on
without gets a result that says so. The last calls of a conversation may still be under way.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from blockwise.compaction.conversation import USER_ROLE, shown_text
from blockwise.compaction.history import TOOL_ROLE
from blockwise.models.renderer import Message

ORPHAN = "[result of a tool call that is not in this conversation]"
NO_RESULT = "[no result: the call was interrupted]"


@dataclass(frozen=True)
class Repaired:
    """A conversation whose tool rounds are whole, and what was done for it."""

    messages: list[Message]
    repairs: tuple[str, ...]  # in words, with the number of the message as it was given


def repair_tool_rounds(messages: Sequence[Message]) -> Repaired:
    """Make every tool round whole."""
    whole: list[Message] = []
    repairs: list[str] = []
    orphans: list[Message] = []
    open_calls: list[str] = []
    answered: set[str] = set()
    for number, message in enumerate(messages):
        call = message.get("tool_call_id")
        if message["role"] != TOOL_ROLE:
            repairs += [f"messages[{number}]: call {one} had no result" for one in open_calls]
            whole += [_no_result(one) for one in open_calls] + orphans
            orphans = []
            whole.append(message)
            open_calls = [one["id"] for one in message.get("tool_calls") or ()]
            answered = set()
        elif call in open_calls:
            open_calls.remove(call)
            answered.add(call)
            whole.append(message)
        elif call in answered:
            repairs.append(f"messages[{number}]: a second result of call {call}, left out")
        else:
            repairs.append(f"messages[{number}]: a result of call {call}, which is not there")
            text = f"{ORPHAN}\n{shown_text(message)}"
            orphans.append({"role": USER_ROLE, "content": text})
    return Repaired(whole + orphans, tuple(repairs))


def _no_result(call_id: str) -> Message:
    return {"role": TOOL_ROLE, "tool_call_id": call_id, "content": NO_RESULT}
