"""Sequential: one summary of everything, in one call. The paper's baseline, under a budget.

Source: arXiv 2605.23296 (secondary reading).
"""

from blockwise.compaction.strategy import Amounts, Arms, Kept, Round, Strategy, Work, summaries_of


async def _compact(work: Work) -> Kept:
    done = await work.summarise_whole(work.history, 0, work.room_tokens(1))
    return Kept(texts=summaries_of(done), rounds=(done,))


def _rounds(amounts: Amounts) -> list[Round]:
    shown = sum(amounts.block_tokens)
    return [Round((amounts.room_tokens(1),), shown, is_conversation=True)]


STRATEGY = Strategy(arms=Arms.ONE, compact=_compact, rounds=_rounds)
