"""Target block, the paper's layout: B1..B(k-1), then the marked history block k, then the prompt.

Everything before the opening marker is a prefix of the agent's own conversation and comes from
the cache; the marker breaks the prefix, so each worker prefills its own history block again.

Source: arXiv 2605.23296, phase 2 (secondary reading).
"""

from collections.abc import Sequence

from blockwise.compaction.fences import fence_span
from blockwise.compaction.history import Cut, History, slice_turns
from blockwise.compaction.partition import HistoryBlock
from blockwise.models.renderer import Message

MARK = "TARGET_BLOCK"
SCOPE = (
    "Now summarize only the text between {} and {}. Everything before it is context; leave it out."
)


def worker_messages(
    history: History, blocks: Sequence[HistoryBlock], index: int, prompt: str
) -> list[Message]:
    """The conversation up to the end of history block k, that block marked, then the prompt."""
    shown = slice_turns(history.turns, Cut(0), blocks[index].stop)
    turns, marks = fence_span(MARK, shown, blocks[index].span)
    request = {"role": "user", "content": f"{SCOPE.format(*marks)}\n\n{prompt}"}
    return [*(turn.message() for turn in turns), request]


def cached_blocks(index: int, num_blocks: int) -> int:
    """Those before its own, whose opening marker ends the shared prefix."""
    return index
