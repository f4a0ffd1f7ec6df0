"""Compacting by a strategy: what it keeps becomes the new history, within the budget.

It is a compactor to an agent, which does not know which of the two it has. Whatever
a strategy keeps, identifiers that it lost are added here, and nothing exceeds the budget: first
identifiers are left out, then the end of the last text.
"""

import time
from collections.abc import Sequence

from blockwise.compaction.ahead import AnswersAhead
from blockwise.compaction.compactor import (
    IDENTIFIERS_HEADING,
    Compaction,
    CompactionRule,
    Compactor,
    content_of,
    span_s,
    text_of,
    turns_to_compact,
)
from blockwise.compaction.history import History, slice_turns
from blockwise.compaction.identifiers import survival
from blockwise.compaction.strategy import Kept, Work, load_strategy
from blockwise.errors import CompactionError
from blockwise.models.renderer import Renderer
from blockwise.serving.client import EngineClient


class StrategyCompactor(Compactor):
    """Compacts histories by the strategy that a rule names, and sends nothing ahead.

    Args:
        engine: the client of the server that summarises.
        renderer: template and tokenizer of the same backbone.
        rule: strategy, budget, and what its requests are like.
    """

    def __init__(self, engine: EngineClient, renderer: Renderer, rule: CompactionRule) -> None:
        assert rule.strategy is not None, rule
        assert rule.budget_tokens is not None, rule
        super().__init__(engine, renderer, rule)
        self._strategy, self._budget_tokens = load_strategy(rule.strategy), rule.budget_tokens

    async def compact(
        self,
        history: History,
        *,
        cache_salt: str | None,
        seed: int,
        keep_last_turns: bool = True,
        ahead: AnswersAhead | None = None,
    ) -> Compaction:
        """Replace everything but the verbatim part by what the strategy keeps.

        Args:
            history: the conversation; it is never changed.
            cache_salt: keeps this cell's prefix cache apart; None leaves it off.
            seed: requests sample with seeds derived from it.
            keep_last_turns: False compacts the rule's verbatim tail too.
            ahead: None; no strategy is eager.

        Raises:
            CompactionError: nothing to compact, no room in the budget, or a request failed.
        """
        assert ahead is None, self._rule
        begin_s = time.perf_counter()
        start, stop = turns_to_compact(history, self._rule, self._renderer, keep=keep_last_turns)
        work = Work(
            history=History(history.turns[:stop]),
            engine=self._engine,
            renderer=self._renderer,
            rule=self._rule,
            budget_tokens=self._budget_tokens,
            cache_salt=cache_salt,
            seed=seed,
        )
        blocks = work.blocks  # before anything is asked: with nothing to compact nothing is
        kept = await self._strategy.compact(work)
        left = held_to_budget(work, kept)
        workers = [worker for one in kept.rounds for worker in one.workers]
        return Compaction(
            history=History((*left.turns, *history.turns[stop:])),
            blocks=blocks,
            block_content=tuple(
                content_of(slice_turns(history.turns, *part.span)) for part in blocks
            ),
            turn_range=(start, stop),
            untouched_tokens=tuple(n for one in kept.rounds for n in one.untouched_tokens),
            workers=tuple(workers),
            requests=tuple(request for one in kept.rounds for request in one.requests),
            faults=tuple(fault for one in kept.rounds for fault in one.faults),
            refused=tuple(refused for one in kept.rounds for refused in one.refused),
            begin_s=begin_s,
            wall_s=span_s(workers),
            stall_s=time.perf_counter() - begin_s,
        )


def compactor_of(engine: EngineClient, renderer: Renderer, rule: CompactionRule) -> Compactor:
    """What compacts by a rule."""
    kind = Compactor if rule.strategy is None else StrategyCompactor
    return kind(engine, renderer, rule)


def held_to_budget(work: Work, kept: Kept) -> History:
    """The new history, without what would exceed the budget.

    Raises:
        CompactionError: even without any text it exceeds the budget.
    """
    lost = _lost_identifiers(work, kept)
    texts = list(kept.texts)
    while True:
        shown = [*texts, *_line_of(lost)]
        left = work.with_head(shown, kept.turns)
        excess = work.tokens(left) - work.budget_tokens
        if excess <= 0:
            return left
        if lost:
            lost = lost[:-1]
        elif texts and texts[-1]:
            texts[-1] = _cut_by(work.renderer, texts[-1], excess)
        else:
            raise CompactionError(
                f"what is kept exceeds budget_tokens {work.budget_tokens} by {excess}; raise it"
            )


def _lost_identifiers(work: Work, kept: Kept) -> tuple[str, ...]:
    """Identifiers that stood in the history and stand in nothing that is kept."""
    if not work.rule.keep_identifiers:
        return ()
    before = text_of(work.history, work.history.compactable(0))
    after = "\n".join([*kept.texts, *(turn.text for turn in kept.turns)])
    return survival(before, after).lost[: work.rule.keep_identifiers]


def _line_of(identifiers: Sequence[str]) -> list[str]:
    return [f"{IDENTIFIERS_HEADING} {', '.join(identifiers)}"] if identifiers else []


def _cut_by(renderer: Renderer, text: str, num_tokens: int) -> str:
    """The text without its last tokens."""
    offsets = renderer.token_offsets(text)
    return text[: offsets[-num_tokens][0]] if num_tokens < len(offsets) else ""
