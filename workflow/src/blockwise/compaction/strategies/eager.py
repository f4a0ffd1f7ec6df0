"""Eager: parallel's requests, one after another, as if each block were summarised when it closed.

The requests are those of `parallel`, so recall may differ by batching alone: an engine computes a
request that runs alone in another order than one of several. Beside parallel it tells by how much.

Source: ours (decision 0055).
"""

from dataclasses import replace

from blockwise.compaction.strategies import parallel
from blockwise.compaction.strategy import Arms, Kept, Strategy, Work


async def _compact(work: Work) -> Kept:
    alone = replace(work, rule=replace(work.rule, max_concurrent_workers=1))
    return await parallel.STRATEGY.compact(alone)


STRATEGY = Strategy(arms=Arms.LAYOUTS, compact=_compact, rounds=parallel.STRATEGY.rounds)
