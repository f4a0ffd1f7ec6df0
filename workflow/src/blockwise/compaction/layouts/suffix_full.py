"""Suffix, full: the whole snapshot untouched, then one message that names history block k.

Every worker sees all the context there is and shares one prefix, the agent's own conversation,
so only the last message is prefilled. Each worker decodes against the whole snapshot's keys
and values, however early its target. The target is named by the words it begins with and by
those that follow it (blockwise.compaction.target_name).

Deviation: the paper's workers see nothing after their target, and find it by marks.
"""

from collections.abc import Sequence

from blockwise.compaction.history import Cut, History, slice_turns
from blockwise.compaction.partition import HistoryBlock
from blockwise.compaction.target_name import name_place
from blockwise.models.renderer import Message

SHOWS_LATER = True
SCOPE = (
    "Now summarize only one part of the conversation above: from {start} {stop}. Everything else "
    "is context; leave it out."
)
LAST_STOP = "to the end"


def worker_messages(
    history: History, blocks: Sequence[HistoryBlock], index: int, prompt: str
) -> list[Message]:
    """The conversation up to the verbatim tail, then the target's name and the prompt."""
    turns = slice_turns(history.turns, Cut(0), blocks[-1].stop)
    start, stop = name_place(turns, blocks[index].start), LAST_STOP
    if index + 1 < len(blocks):
        stop = f"up to, but not including, {name_place(turns, blocks[index].stop)}"
    scope = SCOPE.format(start=start, stop=stop)
    request = {"role": "user", "content": f"{scope}\n\n{prompt}"}
    return [*(turn.message() for turn in turns), request]


def cached_blocks(index: int, num_blocks: int) -> int:
    """All of them: the request only appends to the conversation."""
    return num_blocks
