"""A conversation that grows: what was read and counted of it is not read and counted again.

An agent asks at every step whether its history exceeds tau, and nearly always it does not. Only
what it appended since the last step is read then, and its last tool round, because results may have
joined it.
"""

from collections.abc import Sequence
from typing import Any

from blockwise.compaction.conversation import copied, read_history
from blockwise.errors import CompactionError
from blockwise.models.renderer import Renderer
from blockwise.models.round_template import head_stop, rounds


class KnownMessages:
    """The closed part of a conversation, all rounds but the last, and its tokens."""

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer
        self._closed: list[Any] = []
        self._tokens = 0

    def count(self, messages: Sequence[Any]) -> int | None:
        """Rendered tokens of the conversation; None where it has to be read as a whole."""
        num_closed = len(self._closed)
        if not num_closed or list(messages[:num_closed]) != self._closed:
            return None
        new = list(messages[num_closed:])
        try:
            added = self.renderer.count_added(read_history(new).messages())
        except CompactionError:  # said with the numbers of the whole conversation
            return None
        if added is None:
            return None
        total = self._tokens + sum(tokens for _, tokens in added)
        last = [start for start, _ in rounds(new)][-1]
        self._closed += copied(new[:last])
        self._tokens += sum(tokens for stop, tokens in added if stop <= last)
        return total

    def learn(self, messages: Sequence[Any]) -> None:
        """Take over a conversation that was read as a whole."""
        starts = [start for start, _ in rounds(messages, head_stop(messages))]
        num_closed = starts[-1] if starts else 0
        self._closed = copied(messages[:num_closed])
        shown = read_history(messages).messages() if num_closed else []
        self._tokens = self.renderer.ends(shown)[num_closed - 1] if num_closed else 0
