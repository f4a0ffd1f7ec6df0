"""What a strategy declares: all that the study must know of one way to compact a history.

A strategy is one module of `blockwise.compaction.strategies` with one constant

    STRATEGY = Strategy(...)

and its name in the configuration is the module's. Adding one is adding a file; nothing else names
it. A strategy is given a history and an engine, and gives back what it keeps and what it asked. All
are held to one budget: the tokens that the new history may hold, its system prompt included.
"""

import functools
import importlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from blockwise.compaction.acceptance import summary_of
from blockwise.compaction.compactor import (
    IDENTIFIERS_HEADING,
    WRAPPER_ROLE,
    Compaction,
    CompactionRule,
    Compactor,
    derive_seed,
    wrapper_text,
)
from blockwise.compaction.history import Cut, History, Turn
from blockwise.compaction.partition import HistoryBlock, partition
from blockwise.config.arms import SEQUENTIAL, STRATEGY_PACKAGE, known_strategies
from blockwise.errors import CompactionError
from blockwise.models.renderer import Renderer
from blockwise.serving.client import EngineClient

IDENTIFIER_TOKENS = 4
"""Room kept for each identifier that may be added: a number, a file name with its comma. Where
identifiers are longer fewer are added, because nothing exceeds the budget."""
PLACEHOLDER = "x"  # stands for a summary where the room beside summaries is counted


class Arms(StrEnum):
    """What tells arms of one strategy apart."""

    ONE = "one"  # it cuts no history blocks
    SIZES = "sizes"  # one for each block size
    LAYOUTS = "layouts"  # one for each layout and block size


@dataclass(frozen=True)
class Kept:
    """What a strategy leaves of a history, and what it asked for it."""

    texts: tuple[str, ...] = ()  # stand in the wrapper message
    turns: tuple[Turn, ...] = ()  # follow it
    rounds: tuple[Compaction, ...] = ()  # of requests, one after another


@dataclass(frozen=True)
class Work:
    """A compaction that is due.

    Attributes:
        history: the system prompt and the turns that are compacted; nothing else.
        engine: the client of the server that summarises.
        renderer: template and tokenizer of the same backbone.
        rule: prompt, layout, block size and caps.
        budget_tokens: most that the new history holds, rendered, its system prompt included.
        cache_salt: of every request.
        seed: requests sample with seeds derived from it.
    """

    history: History
    engine: EngineClient
    renderer: Renderer
    rule: CompactionRule
    budget_tokens: int
    cache_salt: str | None
    seed: int

    @property
    def head(self) -> tuple[Turn, ...]:
        """The system prompt, which always stays."""
        return self.history.turns[: self.history.num_system_turns]

    @functools.cached_property
    def blocks(self) -> tuple[HistoryBlock, ...]:
        """History blocks of the rule's size; one where it has none."""
        turn_range = self.history.compactable(0)
        if turn_range[0] >= turn_range[1]:
            raise CompactionError("no turn is left to compact; keep fewer last turns verbatim")
        size = self.rule.block_size_tokens or self.tokens(self.history)
        return tuple(partition(self.history, turn_range, size, self.rule.boundary, self.renderer))

    def tokens(self, history: History) -> int:
        """Rendered tokens of a history."""
        return self.renderer.count(history.messages(), add_generation_prompt=False)

    def with_head(self, texts: Sequence[str], turns: Sequence[Turn] = ()) -> History:
        """The system prompt, these texts in a wrapper where there are any, then these turns."""
        wrapper = (Turn(WRAPPER_ROLE, wrapper_text(texts)),) if texts else ()
        return History((*self.head, *wrapper, *turns))

    def room_tokens(self, num_texts: int) -> int:
        """Tokens that so many summaries may hold together.

        Raises:
            CompactionError: the budget has no room for a token of each.
        """
        beside = self.tokens(self.with_head([PLACEHOLDER] * num_texts)) - num_texts
        room = self.budget_tokens - beside - self._identifier_tokens
        if room < num_texts:
            raise CompactionError(
                f"budget_tokens {self.budget_tokens} leaves {room} tokens for {num_texts} "
                f"summaries, beside {beside} of system prompt and wrapper; raise it"
            )
        return room

    @property
    def verbatim_tokens(self) -> int:
        """Tokens that the system prompt and turns kept as they are may hold together."""
        if not self._identifier_tokens:
            return self.budget_tokens
        beside = self.tokens(self.with_head([PLACEHOLDER])) - self.tokens(History(self.head))
        return self.budget_tokens - beside - self._identifier_tokens

    @property
    def _identifier_tokens(self) -> int:
        """Room for the line of identifiers."""
        if not self.rule.keep_identifiers:
            return 0
        heading = self.renderer.count_text(IDENTIFIERS_HEADING)
        return heading + IDENTIFIER_TOKENS * self.rule.keep_identifiers

    async def summarise_whole(self, history: History, number: int, max_tokens: int) -> Compaction:
        """One request over a whole history, in the words of the sequential layout.

        Args:
            history: what it is shown.
            number: which round of the strategy this is, from 0.
            max_tokens: most that it writes.
        """
        rule = replace(self.rule, layout=SEQUENTIAL, block_size_tokens=None)
        return await self._ask(history, rule, number, max_tokens)

    async def summarise_blocks(self, max_tokens: int) -> Compaction:
        """One request for each history block, all at once, in the rule's layout."""
        return await self._ask(self.history, self.rule, 0, max_tokens)

    async def _ask(
        self, history: History, rule: CompactionRule, number: int, max_tokens: int
    ) -> Compaction:
        own = replace(
            rule,
            volume_tokens=max_tokens,
            keep_identifiers=0,  # added once, to what is kept in the end
            last_turns=0,
            carries_summaries=False,  # a wrapper is what a summary was made of, and goes into it
        )
        done = await Compactor(self.engine, self.renderer, own).compact(
            history, cache_salt=self.cache_salt, seed=derive_seed(self.seed, number)
        )
        known = self._shared_tokens(history)
        untouched = tuple(min(tokens, known) for tokens in done.untouched_tokens)
        return replace(done, untouched_tokens=untouched)

    def _shared_tokens(self, history: History) -> int:
        """Tokens of the leading turns that a history shares with the conversation."""
        num_shared = 0
        for own, other in zip(self.history.turns, history.turns, strict=False):
            if own != other:
                break
            num_shared += 1
        return self.tokens(History(self.history.turns[:num_shared])) if num_shared else 0


@dataclass(frozen=True)
class Amounts:
    """What a strategy is given, in tokens, for the bill.

    Attributes:
        block_tokens: of each history block.
        worker_tokens: most that the worker of a history block writes.
        room_tokens: what so many summaries may hold together.
        wrapper_tokens: a wrapper of so many summaries, their texts apart.
        written_tokens: what a request is taken to write that may write so many.
    """

    block_tokens: Sequence[int]
    worker_tokens: int
    room_tokens: Callable[[int], int]
    wrapper_tokens: Callable[[int], int]
    written_tokens: Callable[[int], int]


@dataclass(frozen=True)
class Round:
    """Requests that a strategy sends at once, for the bill.

    Attributes:
        max_tokens: of each request.
        shown_tokens: what the one request is shown beside the system prompt; None: each history
            block has one, in the arm's layout.
        is_conversation: whether what is shown is the conversation itself, as it is cached.
    """

    max_tokens: tuple[int, ...]
    shown_tokens: int | None = None
    is_conversation: bool = False


@dataclass(frozen=True)
class Strategy:
    """One way to compact a history."""

    arms: Arms
    """What tells its arms apart."""

    compact: Callable[[Work], Awaitable[Kept]]
    """What it keeps; raises `CompactionError` where it cannot."""

    rounds: Callable[[Amounts], list[Round]]
    """An upper bound of its requests; none: no model is asked."""


def summaries_of(done: Compaction) -> tuple[str, ...]:
    """What the workers of a round wrote, in the order of their history blocks."""
    return tuple(summary_of(worker) for worker in done.workers)


def whole_range(history: History) -> tuple[Cut, Cut]:
    """From the first turn behind the system prompt to the end."""
    return Cut(history.num_system_turns), Cut(len(history.turns))


@functools.cache
def load_strategy(name: str) -> Strategy:
    """A strategy by the name of its module.

    Raises:
        CompactionError: there is none of this name.
    """
    if name not in known_strategies():
        raise CompactionError(
            f"strategy {name!r} is unknown; there are: {', '.join(known_strategies())}. Choose "
            "one, or add a module to workflow/src/blockwise/compaction/strategies"
        )
    found: Strategy = importlib.import_module(f"{STRATEGY_PACKAGE}.{name}").STRATEGY
    return found
