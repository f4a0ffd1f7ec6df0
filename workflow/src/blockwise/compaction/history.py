"""The history of an agent session: turns, and positions inside them.

A turn is one message. The history is immutable, so a compaction that fails cannot have
damaged it. A `Cut` is a position between two characters of the whole history; history blocks,
verbatim tails and truncations are all spans between two cuts, whatever the boundary rule.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from blockwise.config.choices import ContentType
from blockwise.models.renderer import Message

SYSTEM_ROLE = "system"
TOOL_ROLE = "tool"


@dataclass(frozen=True)
class Turn:
    """One message of the conversation.

    `extra` keeps what a message carries beside role and content (tool_calls, tool_call_id,
    name), untouched, so that messages go in and come out the same.
    """

    role: str
    text: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    content: ContentType = ContentType.DIALOGUE

    @classmethod
    def from_message(cls, message: Message) -> "Turn":
        """Read an OpenAI-style message; a missing content is the empty text.

        Tool calls and their results are tool output; everything else is dialogue.
        """
        extra = {key: value for key, value in message.items() if key not in {"role", "content"}}
        is_tool = message["role"] == TOOL_ROLE or bool(message.get("tool_calls"))
        content = ContentType.TOOL_OUTPUT if is_tool else ContentType.DIALOGUE
        return cls(str(message["role"]), message.get("content") or "", extra, content)

    def message(self) -> Message:
        """The OpenAI-style message of this turn."""
        return {"role": self.role, "content": self.text, **self.extra}


@dataclass(frozen=True, order=True)
class Cut:
    """A position in a history: before character `char` of turn `turn`."""

    turn: int
    char: int = 0


@dataclass(frozen=True)
class History:
    """The turns of one conversation, the system prompt first where there is one."""

    turns: tuple[Turn, ...] = ()

    @classmethod
    def with_system_prompt(cls, text: str) -> "History":
        """A conversation that has only its system prompt."""
        return cls((Turn(SYSTEM_ROLE, text),))

    def extended(self, *turns: Turn) -> "History":
        """The history with turns appended; this one stays as it is."""
        return History(self.turns + turns)

    def messages(self) -> list[Message]:
        """All turns as OpenAI-style messages."""
        return [turn.message() for turn in self.turns]

    @property
    def num_system_turns(self) -> int:
        """Leading system turns: they always stay verbatim."""
        count = 0
        while count < len(self.turns) and self.turns[count].role == SYSTEM_ROLE:
            count += 1
        return count

    def group_starts(self) -> list[int]:
        """Turns at which the conversation may be parted.

        A tool call and its results form one group; nothing may come between them.
        """
        return list(self._group_starts)

    @cached_property
    def _group_starts(self) -> list[int]:
        starts = []
        open_calls: set[str] = set()
        for index, turn in enumerate(self.turns):
            if not open_calls and turn.role != TOOL_ROLE:
                starts.append(index)
            if turn.role == TOOL_ROLE:
                open_calls.discard(str(turn.extra.get("tool_call_id")))
            else:
                open_calls = {str(call.get("id")) for call in turn.extra.get("tool_calls") or ()}
        return starts

    def exchange_starts(self) -> list[int]:
        """Turns at which something new begins: a user's turn, or a tool round.

        What is appended later changes none of them.
        """
        return [
            index
            for index in self.group_starts()
            if self.turns[index].role == "user" or self.turns[index].extra.get("tool_calls")
        ]

    def compactable(self, last_turns: int) -> tuple[int, int]:
        """Range of turns that a compaction may replace, as (start, stop).

        The system prompt and at least the last `last_turns` turns stay; the stop moves back
        to the start of a tool group rather than part it.
        """
        start = self.num_system_turns
        wanted = max(start, len(self.turns) - last_turns)
        starts = [index for index in self.group_starts() if index <= wanted]
        stop = wanted if wanted == len(self.turns) else max(starts, default=start)
        return start, max(start, stop)


def slice_turns(turns: Sequence[Turn], start: Cut, stop: Cut) -> list[Turn]:
    """The turns between two cuts; turns at the edges keep only their part of the text."""
    piece = []
    for index in range(start.turn, min(stop.turn + 1, len(turns))):
        turn = turns[index]
        first = start.char if index == start.turn else 0
        last = stop.char if index == stop.turn else len(turn.text)
        whole = first == 0 and index != stop.turn
        if whole:
            piece.append(turn)
        elif last > first:
            piece.append(replace(turn, text=turn.text[first:last]))
    return piece


def mark_span(turns: Sequence[Turn], span: tuple[Cut, Cut], marks: tuple[str, str]) -> list[Turn]:
    """The turns with a mark before the first and after the last character of a span."""
    start, stop = span
    opening, closing = marks
    if stop.char == 0:  # the span ends with the turn before; the mark stands inside that turn
        stop = Cut(stop.turn - 1, len(turns[stop.turn - 1].text))
    marked = list(turns)
    for cut, mark in ((stop, closing), (start, opening)):  # the later one first: it moves nothing
        turn = marked[cut.turn]
        text = turn.text[: cut.char] + mark + turn.text[cut.char :]
        marked[cut.turn] = replace(turn, text=text)
    return marked
