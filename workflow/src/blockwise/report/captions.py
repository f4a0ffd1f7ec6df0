"""Captions of the report's figures.

They say what was done, in the words of the code that draws the figure, and what the papers
report, in those of the claims. Nothing of a figure is imported: the workflow asks for captions
at every start.
"""

import ast
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from blockwise.config.claims import Claim, Paper
from blockwise.figures.registry import FIGURES, figures_of
from blockwise.tables.registry import Family

TITLE = re.compile(r"Figure `\w+`: (?P<title>.*?)\.?")


CATEGORIES = {Family.COMPACTION: "2 Context compaction", Family.MXFP4: "3 MXFP4 training"}
"""Where the report lists the figures of each study: behind the claims, before the tables."""


def category_of(figure: str) -> str:
    """The part of the report that a figure belongs to."""
    return next(title for family, title in CATEGORIES.items() if figure in figures_of(family))


def title_of(figure: str) -> str:
    """What a figure shows, in one line.

    Raises:
        KeyError: there is no such figure.
    """
    first = _docstring(figure).splitlines()[0]
    match = TITLE.fullmatch(first)
    assert match, f"{figure}: its docstring opens with {first!r}, not with Figure `name`: title."
    return match["title"][0].upper() + match["title"][1:]


def caption_of(figure: str, claims: Mapping[str, Claim]) -> str:
    """The caption of a figure, as reStructuredText.

    Args:
        figure: its name.
        claims: all claims by id; those that point to this figure are listed.
    """
    _, *paragraphs = _docstring(figure).split("\n\n")
    said: dict[str, list[str]] = {}
    for claim in claims.values():
        if claim.figure == figure:
            words = "We say:" if claim.paper is Paper.OURS else "The papers say:"
            said.setdefault(words, []).append(
                f"- {claim.statement} Reported ({claim.reported.grade}, {claim.locator}): "
                f"{claim.reported.text}."
            )
    for words, listed in said.items():
        paragraphs += [words, "\n".join(listed)]
    return "\n\n".join(paragraphs)


def _docstring(figure: str) -> str:
    spec = find_spec(FIGURES[figure])
    assert spec is not None and spec.origin is not None  # a module of ours
    docstring = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))
    assert docstring is not None, f"{figure} has no docstring"
    return docstring
