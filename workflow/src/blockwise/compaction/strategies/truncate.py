"""Truncate: the last tokens stay as they are, everything before them goes. No model is asked.

It is the floor of every summary: what a conversation of as many tokens knows without one.
"""

from blockwise.compaction.history import slice_turns
from blockwise.compaction.partition import last_tokens_cut
from blockwise.compaction.strategy import Amounts, Arms, Kept, Round, Strategy, Work, whole_range


async def _compact(work: Work) -> Kept:
    cut = last_tokens_cut(work.history, work.verbatim_tokens, work.renderer)
    _, end = whole_range(work.history)
    return Kept(turns=tuple(slice_turns(work.history.turns, cut, end)))


def _rounds(_amounts: Amounts) -> list[Round]:
    return []


STRATEGY = Strategy(arms=Arms.ONE, compact=_compact, rounds=_rounds)
