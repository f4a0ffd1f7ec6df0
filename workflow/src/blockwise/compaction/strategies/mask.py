"""Mask: documents and tool results become a line that names them, the oldest first. No model.

A text is named by its first words, as many as say which it is. The newest texts stay as long as the
budget holds them. Where even the lines exceed it, the oldest go. An agent that has tools could read
a named text again; here nothing is read again, and what a line does not say is lost.

Source: ours; observation masking, as agents do it with what their tools returned.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from blockwise.compaction.compactor import carried_summary
from blockwise.compaction.history import TOOL_ROLE, History, Turn, slice_turns
from blockwise.compaction.partition import last_tokens_cut
from blockwise.compaction.strategy import Amounts, Arms, Kept, Round, Strategy, Work, whole_range

LINE = "[Left out: a text of {tokens} tokens that begins: {opening}]"
MASKED = "[Left out: a text of "  # how a line begins; one is not masked again
MAX_OPENING_CHARS = 80  # one line: a title, or speakers and a date
MIN_MASKED_TOKENS = 80  # a text that is hardly longer than its line stays
SHOWN_ROLES = ("user", TOOL_ROLE)  # who brings documents and results


async def _compact(work: Work) -> Kept:
    carried = carried_summary(work.history, work.history.compactable(0))
    begin = len(work.head) + (carried is not None)  # names that were added are added anew
    turns = [*work.head, *work.history.turns[begin:]]
    wholes = list(turns)
    lines = {index: line for index, turn in enumerate(turns) for line in _lines(work, turn)}
    for index, line in lines.items():
        turns[index] = line
    room = work.verbatim_tokens - work.tokens(History(tuple(turns)))
    for index, line in reversed(lines.items()):
        whole = wholes[index]
        room -= work.renderer.count_text(whole.text) - work.renderer.count_text(line.text)
        if room < 0:
            break
        turns[index] = whole
    left = History(tuple(turns))
    cut = last_tokens_cut(left, work.verbatim_tokens, work.renderer)
    return Kept(turns=tuple(slice_turns(left.turns, cut, whole_range(left)[1])))


def _lines(work: Work, turn: Turn) -> Iterator[Turn]:
    """The turn with a line in place of its text, if it is one to be masked."""
    if turn.role not in SHOWN_ROLES or turn.text.startswith(MASKED):
        return
    tokens = work.renderer.count_text(turn.text)
    if tokens >= MIN_MASKED_TOKENS:
        yield replace(turn, text=LINE.format(tokens=tokens, opening=opening_of(turn.text)))


def opening_of(text: str) -> str:
    """The first whole words of a text, on one line."""
    words = re.sub(r"\s+", " ", text).strip()
    if len(words) <= MAX_OPENING_CHARS:
        return words
    return words[: MAX_OPENING_CHARS + 1].rpartition(" ")[0] or words[:MAX_OPENING_CHARS]


def _rounds(_amounts: Amounts) -> list[Round]:
    return []


STRATEGY = Strategy(arms=Arms.ONE, compact=_compact, rounds=_rounds)
