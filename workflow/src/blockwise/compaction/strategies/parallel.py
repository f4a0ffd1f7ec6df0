"""Parallel: a summary of each history block, all at once; the budget is shared out evenly.

Source: arXiv 2605.23296, phases 1 to 3 (secondary reading). Deviation: the paper has no budget.
"""

from blockwise.compaction.strategy import Amounts, Arms, Kept, Round, Strategy, Work, summaries_of


async def _compact(work: Work) -> Kept:
    num_blocks = len(work.blocks)
    share = work.room_tokens(num_blocks) // num_blocks
    done = await work.summarise_blocks(min(work.rule.volume_tokens, share))
    return Kept(texts=summaries_of(done), rounds=(done,))


def _rounds(amounts: Amounts) -> list[Round]:
    num_blocks = len(amounts.block_tokens)
    share = amounts.room_tokens(num_blocks) // num_blocks
    return [Round((min(amounts.worker_tokens, share),) * num_blocks)]


STRATEGY = Strategy(arms=Arms.LAYOUTS, compact=_compact, rounds=_rounds)
