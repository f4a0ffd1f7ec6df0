"""Hierarchical: a summary of each history block at once, and one of them where they are too long.

The second request shows the first ones' summaries in a wrapper, as the agent would see them, and
asks in the words of the sequential layout. It is sent only where the summaries exceed the budget.

Source: ours; what agents commonly do with summaries of summaries.
"""

from blockwise.compaction.strategy import Amounts, Arms, Kept, Round, Strategy, Work, summaries_of


async def _compact(work: Work) -> Kept:
    room = work.room_tokens(len(work.blocks))
    first = await work.summarise_blocks(work.rule.volume_tokens)
    texts = summaries_of(first)
    if sum(map(work.renderer.count_text, texts)) <= room:
        return Kept(texts=texts, rounds=(first,))
    second = await work.summarise_whole(work.with_head(texts), 1, work.room_tokens(1))
    return Kept(texts=summaries_of(second), rounds=(first, second))


def _rounds(amounts: Amounts) -> list[Round]:
    num_blocks = len(amounts.block_tokens)
    first = Round((amounts.worker_tokens,) * num_blocks)
    written = num_blocks * amounts.written_tokens(amounts.worker_tokens)
    if written <= amounts.room_tokens(num_blocks):
        return [first]
    shown = amounts.wrapper_tokens(num_blocks) + written
    return [first, Round((amounts.room_tokens(1),), shown)]


STRATEGY = Strategy(arms=Arms.LAYOUTS, compact=_compact, rounds=_rounds)
