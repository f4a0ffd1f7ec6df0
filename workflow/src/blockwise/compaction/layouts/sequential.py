"""Sequential: one worker over everything, in the conversation itself.

The request is the agent's own conversation and one more user message, so its whole prefix
is already cached. It is the paper's baseline.
"""

from collections.abc import Sequence

from blockwise.compaction.history import Cut, History, slice_turns
from blockwise.compaction.partition import HistoryBlock
from blockwise.models.renderer import Message

SCOPE = "Now summarize the whole conversation above, from its first message to its last."


def worker_messages(
    history: History, blocks: Sequence[HistoryBlock], index: int, prompt: str
) -> list[Message]:
    """The conversation up to the verbatim tail, then the compaction prompt."""
    turns = slice_turns(history.turns, Cut(0), blocks[index].stop)
    request = {"role": "user", "content": f"{SCOPE}\n\n{prompt}"}
    return [*(turn.message() for turn in turns), request]


def cached_blocks(index: int, num_blocks: int) -> int:
    """All of them: the request only appends to the conversation."""
    return index + 1
