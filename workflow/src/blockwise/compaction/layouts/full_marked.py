"""Full, marked: the whole snapshot, with history block k marked in place, then the prompt.

Every worker sees all the context there is, what follows its history block included. Only what
stands before the opening marker is a prefix of the agent's own conversation: each worker prefills
its own history block and all later ones again, so the first worker prefills the whole snapshot.

Source: arXiv 2605.23296, phase 2, the alternative rejected for its cache use (secondary reading).
"""

from collections.abc import Sequence

from blockwise.compaction.fences import fence_span
from blockwise.compaction.history import Cut, History, slice_turns
from blockwise.compaction.partition import HistoryBlock
from blockwise.models.renderer import Message

SHOWS_LATER = True
MARK = "TARGET_BLOCK"
SCOPE = (
    "Now summarize only the text between {} and {}. Everything before and after it is context; "
    "leave it out."
)


def worker_messages(
    history: History, blocks: Sequence[HistoryBlock], index: int, prompt: str
) -> list[Message]:
    """The conversation up to the verbatim tail, history block k marked, then the prompt."""
    shown = slice_turns(history.turns, Cut(0), blocks[-1].stop)
    turns, marks = fence_span(MARK, shown, blocks[index].span)
    request = {"role": "user", "content": f"{SCOPE.format(*marks)}\n\n{prompt}"}
    return [*(turn.message() for turn in turns), request]


def cached_blocks(index: int, num_blocks: int) -> int:
    """Those before its own, whose opening marker ends the shared prefix."""
    return index
