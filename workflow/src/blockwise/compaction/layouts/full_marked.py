"""Full, marked: the whole snapshot, with history block k marked in place, then the prompt.

Every worker sees all the context there is, what follows its history block included. Only what
stands before the opening marker is a prefix of the agent's own conversation: each worker prefills
its own history block and all later ones again, so the first worker prefills the whole snapshot.

Source: arXiv 2605.23296, phase 2, the alternative rejected for its cache use (secondary reading).
"""

from collections.abc import Sequence

from blockwise.compaction.history import Cut, History, mark_span, slice_turns
from blockwise.compaction.partition import HistoryBlock
from blockwise.serving.renderer import Message

MARKS = ("<TARGET_BLOCK>\n", "\n</TARGET_BLOCK>")
SCOPE = (
    "Compact only the part of the conversation between <TARGET_BLOCK> and </TARGET_BLOCK>. "
    "What stands before and after it is context; do not repeat it."
)


def worker_messages(
    history: History, blocks: Sequence[HistoryBlock], index: int, prompt: str
) -> list[Message]:
    """The conversation up to the verbatim tail, history block k marked, then the prompt."""
    snapshot = slice_turns(history.turns, Cut(0), blocks[-1].stop)
    turns = mark_span(snapshot, blocks[index].span, MARKS)
    request = {"role": "user", "content": f"{SCOPE}\n\n{prompt}"}
    return [*(turn.message() for turn in turns), request]


def cached_blocks(index: int, num_blocks: int) -> int:
    """Those before its own, whose opening marker ends the shared prefix."""
    return index
