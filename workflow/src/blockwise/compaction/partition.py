"""Partition: contiguous history blocks of about B tokens that cover a history exactly.

The targets are a fixed grid, every B-th token from the beginning of what is compacted. The `token`
boundary cuts there, as the paper does, snapped back to the nearest character where a token begins.
The `turn` boundary cuts at the first start of an exchange at or past each target: a user's turn, or
a tool round, so that no history block is an answer without its question. Neither ever parts a tool
call from its result. So a cut, once made, stays where it is while the conversation grows, and a
history block can be summarised as soon as it is closed. The last one is open: it ends where the
history does. Realised sizes are recorded because snapping changes them.

Source: arXiv 2605.23296, phase 1 (secondary reading).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from blockwise.compaction.history import TOOL_ROLE, Cut, History, slice_turns
from blockwise.config.choices import Boundary
from blockwise.errors import CompactionError
from blockwise.models.renderer import Renderer


@dataclass(frozen=True)
class HistoryBlock:
    """A contiguous piece of the history, [start, stop), and its realised size."""

    start: Cut
    stop: Cut
    num_tokens: int

    @property
    def span(self) -> tuple[Cut, Cut]:
        """Both ends."""
        return self.start, self.stop


def partition(
    history: History,
    turn_range: tuple[int, int],
    block_size_tokens: int,
    boundary: Boundary,
    renderer: Renderer,
) -> list[HistoryBlock]:
    """Cut the turns [start, stop) of a history into history blocks of about B tokens.

    Args:
        history: the whole conversation, system prompt included.
        turn_range: turns to cut, from `History.compactable`.
        block_size_tokens: B; sizes are in the backbone's tokens.
        boundary: where a history block may end.
        renderer: the backbone's template and tokenizer.

    Raises:
        CompactionError: B is not positive, or there is nothing to cut.
    """
    first, last = turn_range
    if block_size_tokens <= 0:
        raise CompactionError(f"block size {block_size_tokens} must be at least 1 token")
    if first >= last:
        raise CompactionError("no turn is left to compact; keep fewer last turns verbatim")
    ends = renderer.ends(history.messages())  # rendered tokens up to and including each turn
    origin = ends[first - 1] if first else 0
    starts = history.exchange_starts() if boundary == Boundary.TURN else history.group_starts()
    cuts = {Cut(first), Cut(last)}
    for target in range(origin + block_size_tokens, ends[last - 1], block_size_tokens):
        if boundary == Boundary.TURN or _inside_tool_group(history, bisect_right(ends, target)):
            cut = _next_start(starts, ends, target)
        else:
            cut = _cut_between_tokens(history, ends, target, renderer.token_offsets)
        if cut is not None and cut < Cut(last):
            cuts.add(cut)
    offsets = [_tokens_before(history, cut, ends, renderer) for cut in sorted(cuts)]
    return [
        HistoryBlock(start, stop, stop_tokens - start_tokens)
        for (start, stop), (start_tokens, stop_tokens) in zip(
            pairwise(sorted(cuts)), pairwise(offsets), strict=True
        )
    ]


def token_pieces(
    history: History, turn_range: tuple[int, int], piece_tokens: int, renderer: Renderer
) -> list[HistoryBlock]:
    """Cut the turns [start, stop) every so many tokens, wherever that falls, in tool rounds too."""
    first, last = turn_range
    ends = renderer.ends(history.messages())
    origin = ends[first - 1] if first else 0
    offsets_of = lru_cache(maxsize=1)(renderer.token_offsets)  # a long text has many cuts
    tokens_at = {Cut(first): origin, Cut(last): ends[last - 1]}
    for target in range(origin + piece_tokens, ends[last - 1], piece_tokens):
        cut = _cut_between_tokens(history, ends, target, offsets_of)
        tokens_at.setdefault(cut, target)
    return [
        HistoryBlock(start, stop, tokens_at[stop] - tokens_at[start])
        for start, stop in pairwise(sorted(tokens_at))
    ]


def last_tokens_cut(history: History, num_tokens: int, renderer: Renderer) -> Cut:
    """Where to cut so that the system prompt and all after the cut hold at most `num_tokens`.

    The cut falls inside a user's turn or before one: a conversation does not go on with half an
    answer. It is as early as that allows.
    """
    first, last = history.num_system_turns, len(history.turns)
    head = history.turns[:first]
    ends = renderer.ends(history.messages())
    before = ends[first - 1] if first else 0
    target = max(before, ends[-1] - (num_tokens - before))
    while target < ends[-1]:
        if _inside_tool_group(history, bisect_right(ends, target)):
            cut = _next_start(history.group_starts(), ends, target) or Cut(last)
        else:
            cut = _cut_between_tokens(history, ends, target, renderer.token_offsets)
        if cut.turn < last and (cut.char == 0 or history.turns[cut.turn].role != "user"):
            starts = [index for index in history.exchange_starts() if Cut(index) >= cut]
            cut = Cut(min(starts, default=last))
        tail = History((*head, *slice_turns(history.turns, cut, Cut(last))))
        excess = renderer.count(tail.messages(), add_generation_prompt=False) - num_tokens
        if excess <= 0:
            return cut
        target += excess
    return Cut(last)


def _next_start(starts: Sequence[int], ends: Sequence[int], target: int) -> Cut | None:
    """The first of these turns that begins at or past a token; None: it is not there yet."""
    place = bisect_left(starts, target, key=lambda index: ends[index - 1] if index else 0)
    return Cut(starts[place]) if place < len(starts) else None


def _cut_between_tokens(
    history: History,
    ends: list[int],
    target: int,
    offsets_of: Callable[[str], list[tuple[int, int]]],
) -> Cut:
    index = bisect_right(ends, target)
    before = ends[index - 1] if index else 0
    offsets = offsets_of(history.turns[index].text)
    header = ends[index] - before - len(offsets)  # tokens the template adds to the turn
    inside = target - before - header
    if inside <= 0 or inside >= len(offsets):
        return Cut(index if inside <= 0 else index + 1)
    return Cut(index, offsets[inside][0])


def _inside_tool_group(history: History, index: int) -> bool:
    """Whether a turn is a call or a result; a group that is still open is one already."""
    turn = history.turns[index]
    return turn.role == TOOL_ROLE or bool(turn.extra.get("tool_calls"))


def _tokens_before(history: History, cut: Cut, ends: list[int], renderer: Renderer) -> int:
    before = ends[cut.turn - 1] if cut.turn else 0
    if cut.char == 0:
        return before
    rest = renderer.count_text(history.turns[cut.turn].text[cut.char :])
    return ends[cut.turn] - rest
