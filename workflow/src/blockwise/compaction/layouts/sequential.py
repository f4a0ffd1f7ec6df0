"""Sequential: one worker over everything, in the conversation itself.

The request is the agent's own conversation and one more user message, so its whole prefix
is already cached. It is the paper's baseline. What to summarise is named by the words it begins
with (blockwise.compaction.target_name): asked for "the whole conversation", a code model refuses
(workflow/docs/prompts.md).
"""

from collections.abc import Sequence

from blockwise.compaction.history import Cut, History, slice_turns
from blockwise.compaction.partition import HistoryBlock
from blockwise.compaction.target_name import name_place
from blockwise.models.renderer import Message

SCOPE = "Now summarize the part of the conversation above from {start} to the end."


def worker_messages(
    history: History, blocks: Sequence[HistoryBlock], index: int, prompt: str
) -> list[Message]:
    """The conversation up to the verbatim tail, then where it is to begin and the prompt."""
    target = blocks[index]
    turns = slice_turns(history.turns, Cut(0), target.stop)
    scope = SCOPE.format(start=name_place(turns, target.start))
    request = {"role": "user", "content": f"{scope}\n\n{prompt}"}
    return [*(turn.message() for turn in turns), request]


def cached_blocks(index: int, num_blocks: int) -> int:
    """All of them: the request only appends to the conversation."""
    return index + 1
