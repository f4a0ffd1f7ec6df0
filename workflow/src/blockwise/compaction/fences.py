"""Fences: marks around a text that the text itself cannot hold.

A worker finds its history block between two marks, and an agent its summaries. A document may
hold such marks too, by accident or because somebody wants to steer the model, so each mark carries
a nonce: a few digits that follow from the text that it encloses. Nobody can write a text that
names its own digest. The same text always gets the same nonce, so greedy cells repeat and prefixes
stay cached.
"""

import hashlib
from collections.abc import Sequence

from blockwise.compaction.history import Cut, Turn, mark_span, slice_turns

NONCE_DIGITS = 6  # one text in a million fits by accident, and more would cost tokens


def fence(name: str, text: str) -> tuple[str, str]:
    """The opening and the closing mark of a text, without line breaks around them."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()) % 10**NONCE_DIGITS
    return f"<{name} {number:0{NONCE_DIGITS}}>", f"</{name} {number:0{NONCE_DIGITS}}>"


def fenced(name: str, text: str) -> str:
    """A text between its marks, each on a line of its own."""
    opening, closing = fence(name, text)
    return f"{opening}\n{text}\n{closing}"


def unfenced(name: str, text: str) -> str | None:
    """What `fenced` was given; None where a text was not made by it."""
    lines = text.split("\n")
    inner = "\n".join(lines[1:-1])
    return inner if text == fenced(name, inner) else None


def fence_span(
    name: str, turns: Sequence[Turn], span: tuple[Cut, Cut]
) -> tuple[list[Turn], tuple[str, str]]:
    """The turns with a span of them between marks, and the marks."""
    marks = fence(name, "\n".join(turn.text for turn in slice_turns(turns, *span)))
    return mark_span(turns, span, (f"{marks[0]}\n", f"\n{marks[1]}")), marks
