"""The requests of one compaction by a strategy, by the bound that the strategy itself states.

How long a summary gets is what the walk takes it to be; what is shown is the conversation, which is
cached, one history block in a layout, or a text of the strategy's own behind the system prompt.
"""

from collections.abc import Callable
from dataclasses import dataclass

from blockwise.compaction.strategy import IDENTIFIER_TOKENS, Amounts, Round


@dataclass(frozen=True)
class Asked:
    """Requests that are sent at once. Units: tokens."""

    prompts: tuple[int, ...]
    uncached_tokens: int
    max_tokens: tuple[int, ...]


@dataclass(frozen=True)
class Prices:
    """What a walk knows of a conversation that is due. Units: tokens.

    Attributes:
        head_tokens: the system prompt.
        asked_tokens: the words of the sequential layout, prompt and opening of the answer.
        over_blocks: prompts of one request for each history block, and what of them is computed.
        uncached: of a prompt that shares so many tokens with the conversation.
    """

    head_tokens: int
    asked_tokens: int
    over_blocks: Callable[[], tuple[list[int], int]]
    uncached: Callable[[int, int], int]

    def asked(self, one: Round) -> Asked:
        """The requests of a round."""
        if one.shown_tokens is None:
            prompts, uncached = self.over_blocks()
            return Asked(tuple(prompts), uncached, one.max_tokens)
        prompt = self.head_tokens + one.shown_tokens + self.asked_tokens
        shared = self.head_tokens + one.shown_tokens if one.is_conversation else self.head_tokens
        return Asked((prompt,), self.uncached(shared, prompt), one.max_tokens)


def kept_tokens(
    rounds: list[Round], amounts: Amounts, head_tokens: int, budget_tokens: int, identifiers: int
) -> int:
    """Tokens of the history behind the system prompt, once a strategy is done."""
    most = budget_tokens - head_tokens
    if not rounds:
        return most
    written = sum(map(amounts.written_tokens, rounds[-1].max_tokens))
    added = IDENTIFIER_TOKENS * identifiers
    return min(most, written + amounts.wrapper_tokens(len(rounds[-1].max_tokens)) + added)
