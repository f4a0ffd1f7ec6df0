"""Independent: the verbatim head (the system prompt), history block k alone, then the prompt.

It has the shortest requests. A worker cannot know what the history blocks before its own say, and
only the first one, whose history block follows the head as it does in the agent's own conversation,
finds it in the cache. The words of the request are those of the sequential layout.

Source: arXiv 2605.23296, phase 2, the alternative rejected for its lost context and cached
prefix (secondary reading).
"""

from collections.abc import Sequence

from blockwise.compaction.history import Cut, History, slice_turns
from blockwise.compaction.layouts.sequential import SCOPE
from blockwise.compaction.partition import HistoryBlock
from blockwise.compaction.target_name import name_place
from blockwise.models.renderer import Message


def worker_messages(
    history: History, blocks: Sequence[HistoryBlock], index: int, prompt: str
) -> list[Message]:
    """What stands before the first history block, history block k, its name and the prompt."""
    head = slice_turns(history.turns, Cut(0), blocks[0].start)
    turns = [*head, *slice_turns(history.turns, *blocks[index].span)]
    scope = SCOPE.format(start=name_place(turns, Cut(len(head))))
    request = {"role": "user", "content": f"{scope}\n\n{prompt}"}
    return [*(turn.message() for turn in turns), request]


def cached_blocks(index: int, num_blocks: int) -> int:
    """Its own for the first worker; none for the others, whose history block follows the head."""
    return 1 if index == 0 else 0
