"""Counts by length, where a model's tokenizer is not at hand.

Every count is an estimate and is labelled so by whoever uses it. A whole conversation that the
server counted itself gives the scale.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

from blockwise.models.renderer import CountedBy, Message, Renderer

CHARS_PER_TOKEN = 4
"""English prose in the vocabularies of Llama 3 and gpt-oss takes 4 to 5 characters a token."""
TOKENS_PER_MESSAGE = 5
"""Llama 3's header and end of turn; gpt-oss's channels come to about as many."""


class AssumedRenderer(Renderer):
    """Counts by length: four characters are a token, and a message takes five more."""

    def __init__(self) -> None:
        """Load nothing."""
        self.takes_user_runs = True
        self.shows_tool_rounds = True
        self.counted_by = CountedBy.LENGTH
        self._scale = 1.0
        self._head_tokens_of_tools = 0

    def scaled(self, messages: Sequence[Message], num_tokens: int) -> "AssumedRenderer":
        """The same renderer where these messages count as so many tokens."""
        other = copy.copy(self)
        other.counted_by = CountedBy.SERVER
        other._scale = 1.0
        other._scale = num_tokens / max(1, other.count(messages, add_generation_prompt=False))
        return other

    def with_tools(self, tools: Sequence[Mapping[str, Any]]) -> "AssumedRenderer":
        """The same renderer for requests that offer these tools."""
        other = copy.copy(self)
        other._head_tokens_of_tools = self._estimate(json.dumps(list(tools)))
        return other

    def count(self, messages: Sequence[Message], add_generation_prompt: bool) -> int:
        """Tokens of a conversation, template included."""
        return self._scaled(self._own(messages) + TOKENS_PER_MESSAGE * add_generation_prompt)

    def ends(self, messages: Sequence[Message]) -> list[int]:
        """`count` of every prefix."""
        added = (self._estimate_of(message) for message in messages)
        totals = accumulate(added, initial=self._head_tokens_of_tools)
        return [self._scaled(total) for total in list(totals)[1:]]

    def count_added(self, messages: Sequence[Message]) -> list[tuple[int, int]]:
        """Where each message ends that is appended to a conversation, and the tokens it adds."""
        return [
            (stop, self._scaled(self._estimate_of(message)))
            for stop, message in enumerate(messages, start=1)
        ]

    def count_text(self, text: str) -> int:
        """Tokens of a bare text."""
        return self._scaled(self._estimate(text))

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """Pieces of equal length."""
        num_tokens = self.count_text(text)
        edges = [len(text) * number // num_tokens for number in range(num_tokens + 1)] or [0]
        return list(pairwise(edges))

    def _own(self, messages: Sequence[Message]) -> int:
        return self._head_tokens_of_tools + sum(map(self._estimate_of, messages))

    def _estimate_of(self, message: Message) -> int:
        calls = message.get("tool_calls")
        called = self._estimate(json.dumps(calls)) if calls else 0
        return TOKENS_PER_MESSAGE + self._estimate(str(message.get("content") or "")) + called

    def _estimate(self, text: str) -> int:
        return -(-len(text) // CHARS_PER_TOKEN)

    def _scaled(self, num_tokens: int) -> int:
        return round(self._scale * num_tokens)
