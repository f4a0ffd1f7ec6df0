"""Invented names, and the fact: what a synthetic data set is made of.

A language model has read the world, so a question about a real town can be answered
without the document. Names put together from syllables cannot: whoever knows the
answer has read it here. Every invented word is handed out once in a whole data set, so
that a chain of rows never holds two people of one name and a question asks for one thing.

The syllables are a closed list. That keeps names short in any subword vocabulary and
lets a vocabulary be written down for a model trained on this language. Every word belongs to
one split for good, so that what such a model is tested on holds no name it was trained on.
"""

import random
from collections import deque
from dataclasses import dataclass
from datetime import date
from zlib import crc32

from blockwise.config.datasets import Split


def words(text: str) -> tuple[str, ...]:
    """A closed list, written as its entries with commas between them."""
    return tuple(part.strip() for part in text.split(","))


ONSETS = words("b, d, f, g, h, k, l, m, n, p, r, s, t, v, w, z")
VOWELS = words("a, e, i, o, u, ai")
CODAS = words("lk, rk, mp, th, lm, sk, nk, rv, lv")  # endings that keep clear of English words

NUM_TRIES_BEFORE_LONGER = 64  # two-syllable words are nearly used up when so many in a row are
NUM_OPENINGS_APART = 768  # half of the openings: more names than a session of documents holds

MONTHS = words(
    "January, February, March, April, May, June, July, August, "
    "September, October, November, December"
)


@dataclass(frozen=True)
class Fact:
    """One thing that is true in a synthetic data set, before any sentence states it.

    Attributes:
        subject: who or what it is about.
        relation: name of the relation, which holds the sentences and the questions.
        object: the value that a question asks for.
        topic: tells facts of one subject and relation apart, where several may be true.
        day: when it is told, where it can be asked when it happened.
        days_before: that day it happened.
    """

    subject: str
    relation: str
    object: str
    topic: str = ""
    day: date | None = None
    days_before: int = 0


SPLIT_SHARES = (Split.TRAIN,) * 5 + (Split.VALIDATION,) + (Split.TEST,) * 2
"""How the words are dealt: of eight, five, one and two."""


def split_of(word: str) -> Split:
    """The split that an invented word belongs to; it follows from its letters."""
    return SPLIT_SHARES[crc32(word.lower().encode()) % len(SPLIT_SHARES)]


class NameMaker:
    """Hands out the invented words of one split, each once.

    Of any `NUM_OPENINGS_APART` words in a row no two open with the same letters up to the second
    vowel, so that nobody has to tell Bafelk from Bafimp.
    """

    def __init__(self, rng: random.Random, split: Split = Split.TEST) -> None:
        self._rng, self._split = rng, split
        self._used: set[str] = set()
        self._openings: deque[str] = deque(maxlen=NUM_OPENINGS_APART)

    def word(self) -> str:
        """A new capitalised word of two syllables, or more when those run out."""
        num_tries = 0
        while True:
            num_more = num_tries // NUM_TRIES_BEFORE_LONGER
            num_tries += 1
            opening = self._new_opening()
            rest = [self._rng.choice(VOWELS)]
            for _ in range(num_more):
                rest += [self._rng.choice(ONSETS), self._rng.choice(VOWELS)]
            word = opening + "".join(rest) + self._rng.choice(CODAS)
            if word not in self._used and split_of(word) is self._split:
                self._used.add(word)
                self._openings.append(opening)
                return word.capitalize()

    def _new_opening(self) -> str:
        """First onset, first vowel, second onset: as no recent word has them."""
        while True:
            parts = [self._rng.choice(letters) for letters in (ONSETS, VOWELS, ONSETS)]
            opening = "".join(parts)
            if opening not in self._openings:
                return opening

    def person(self) -> str:
        """A new first name and a new surname."""
        return f"{self.word()} {self.word()}"


def format_day(day: date) -> str:
    """A date as LoCoMo's gold answers write it: 7 May 2023."""
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"
