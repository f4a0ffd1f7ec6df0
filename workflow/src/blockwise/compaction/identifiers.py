"""Identifiers: names that must survive a summary letter by letter, and how many of them do.

An agent that no longer has a path, a commit or an error code of its session must look it up again,
or guesses. A summary can keep the sense of a text and lose them all, so survival is counted.
Counted are paths and addresses, hexadecimal digests, version numbers, numbers of three digits and
more, and words of capitals, digits and underscores (`ECONNRESET`, `E0425`, `MAX_RETRIES`).
"""

import re
from collections import Counter
from dataclasses import dataclass

IDENTIFIER = re.compile(
    r"""
    https?://[^\s<>"')\]]+                    # an address
    | (?<![\w/])[~.]{0,2}/?(?:[\w.-]+/)+[\w.-]+    # a path with a slash in it
    | \b[\w-]+\.(?:[a-z]{1,4}\d?)\b(?!\.)      # a file name
    | \b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{7,64}\b  # a digest
    | \bv?\d+(?:\.\d+){1,3}\b                 # a version, a decimal number
    | \b\d{3,}\b                              # a number
    | \b(?=[A-Z0-9_]*[A-Z])(?=[A-Z0-9_]*[\d_])[A-Z][A-Z0-9_]{2,}\b  # E0425, MAX_RETRIES
    | \b[A-Z]{4,}\b                           # ECONNRESET
    """,
    re.VERBOSE,
)
TRAILING = ".,;:!?"


@dataclass(frozen=True)
class Survival:
    """Identifiers of a text, and those that a summary of it no longer holds."""

    num_identifiers: int
    lost: tuple[str, ...]  # most frequent first, then in the order of the text

    @property
    def num_kept(self) -> int:
        """How many of them stand in the summary."""
        return self.num_identifiers - len(self.lost)


def identifiers(text: str) -> Counter[str]:
    """The distinct identifiers of a text, in its order, with how often each occurs."""
    return Counter(found[0].rstrip(TRAILING) for found in IDENTIFIER.finditer(text))


def survival(text: str, summary: str) -> Survival:
    """Which identifiers of a text stand in a summary, letter by letter and whole."""
    counted = identifiers(text)
    lost = [name for name, _ in counted.most_common() if not _stands_in(name, summary)]
    return Survival(len(counted), tuple(lost))


def _stands_in(name: str, summary: str) -> bool:
    """Whether it stands there by itself, and not inside a longer word or number."""
    if name not in summary:  # thousands of them are looked for, and few are there
        return False
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", summary) is not None
