"""Naming a place in a conversation, for a worker that is told its target in words.

A suffix layout leaves the conversation untouched, so nothing in it says where the target begins;
the last message must. What a model can follow back are tokens it has read: the place is named by
the words that stand there, exactly as they stand there. They are quoted on a line of their own,
with the white space before them, and end with a word, so that a tokenizer cuts them as it
did in the history and their token ids recur as one run (decision 0010 has the measurements). The
quotation is as short as singles out the place in what the worker is shown.

Beside it stands the message's number, counted from 1 over all messages shown. A small model
cannot count, so the quotation leads; the number decides where texts repeat, and is all there is
where a message has no text (a bare tool call). Then the next message's words say where to look.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import takewhile

from blockwise.compaction.history import Cut, Turn

MIN_WORDS = 6
"""A shorter quotation may be a name alone, which the model knows in other spellings and contexts.
Six words reach past a title into its sentence, and are enough for 88% of the quotations that
decision 0010 measured."""

MAX_CHARS = 160
"""Two lines of text. What is not singled out by them is repeated text, which more of it would
not single out either; and an unbroken text (base64) must not become a quotation of any length."""

WORD = re.compile(r"\w+")
FIRST_VISIBLE = re.compile(r"[ \t]?\S")  # with the space that tokenizers join to the word after it


def name_place(turns: Sequence[Turn], cut: Cut) -> str:
    """Name a place so that "from" or "up to" can stand before it.

    Args:
        turns: everything the worker is shown, from the first message on.
        cut: a place in them, not their end.
    """
    number = f"message {cut.turn + 1} of {len(turns)}"
    quotation = _unique_quotation(turns, cut)
    if quotation and cut.char:
        return f"the words\n\n{quotation}\n\n(inside {number})"
    if quotation:
        return f"the message that begins\n\n{quotation}\n\n({number})"
    place = f"character {cut.char + 1} of {number}" if cut.char else number
    following = _unique_quotation(turns, Cut(cut.turn + 1))
    if following:
        named = f"the message that begins\n\n{following}\n\n"
        return f"{place}, before {named}(message {cut.turn + 2})"
    return place


def _unique_quotation(turns: Sequence[Turn], cut: Cut) -> str | None:
    """The shortest quotation from a cut on that occurs once in all turns, if there is one.

    Leading white space that no word carries is left out. A quotation never leaves its turn.
    """
    texts = [turn.text for turn in turns]
    rest = texts[cut.turn][cut.char :] if cut.turn < len(texts) else ""
    places: list[tuple[str, int]] | None = None
    for quotation in _quotations(rest):  # each begins with the one before it, and so do its places
        if places is None:
            places = [(text, at) for text in texts for at in _places(quotation, text)]
        places = [(text, at) for text, at in places if text.startswith(quotation, at)]
        if len(places) == 1:
            return quotation
    return None


def _quotations(text: str) -> Iterator[str]:
    """Beginnings of a text that end with a word, from the shortest allowed one on."""
    first = FIRST_VISIBLE.search(text)
    if first is None:
        return
    visible = text[first.start() :].rstrip()
    word_ends = (word.end() for word in WORD.finditer(visible))
    ends = list(takewhile(lambda end: end <= MAX_CHARS, word_ends)) or [MAX_CHARS]
    for end in ends[MIN_WORDS - 1 :] or ends[-1:]:
        yield visible[:end]


def _places(quotation: str, text: str) -> Iterator[int]:
    """Where it stands in a text; places may overlap."""
    at = text.find(quotation)
    while at >= 0:
        yield at
        at = text.find(quotation, at + 1)
