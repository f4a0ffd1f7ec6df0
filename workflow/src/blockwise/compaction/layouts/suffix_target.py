"""Suffix target, ours: B1..Bk untouched, then one message that names history block k.

The request is the agent's own conversation up to the end of history block k and one more user
message, so its whole prefix is already cached and only that message is prefilled. The target is
named by the words it begins with and ends where the conversation does
(blockwise.compaction.target_name).

Deviation: the paper marks the target in place, which breaks the cached prefix there.
"""

from collections.abc import Sequence

from blockwise.compaction.history import Cut, History, slice_turns
from blockwise.compaction.partition import HistoryBlock
from blockwise.compaction.target_name import name_place
from blockwise.models.renderer import Message

SCOPE = (
    "Now summarize only the last part of the conversation above, from {start} to the end. "
    "Everything before it is context; leave it out."
)


def worker_messages(
    history: History, blocks: Sequence[HistoryBlock], index: int, prompt: str
) -> list[Message]:
    """The conversation up to the end of history block k, then the target's name and the prompt."""
    target = blocks[index]
    turns = slice_turns(history.turns, Cut(0), target.stop)
    scope = SCOPE.format(start=name_place(turns, target.start))
    request = {"role": "user", "content": f"{scope}\n\n{prompt}"}
    return [*(turn.message() for turn in turns), request]


def cached_blocks(index: int, num_blocks: int) -> int:
    """All up to and with its own: the request only appends to the conversation."""
    return index + 1
