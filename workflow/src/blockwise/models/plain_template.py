"""Templates that write one message after another: counted by message, without rendering.

Rendering a long conversation takes the template longer than all else the client does, and a
compaction of 64 workers renders almost the same conversation 64 times. Most templates only wrap
each content by its role. Whether one does is found out on a sample whose turns repeat and
alternate; whether it might treat a content differently is read from its source: a template can
look into a text only with its own string literals, so a content that holds none is written as
it stands. Whatever is not proven here is rendered.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from typing import Any

import jinja2
from jinja2 import nodes

from blockwise.errors import EngineError

RenderText = Callable[[Sequence[dict[str, Any]], bool], str]
"""Writes a conversation, with or without the opening of the answer."""

ROLES = ("system", "user", "assistant", "tool")
SAMPLE_ROLES = ("system", "user", "assistant", "user", "user", "assistant", "assistant", "user")
EDGES = ("Be brief. ", " \n 1. Who?\n\n2. Why? \t", "\tNobody — naïve 日本 🙂  ", "x")
MIN_LITERAL_CHARS = 2  # a single character decides nothing a template is known to ask


@dataclass(frozen=True)
class PlainTemplate:
    """How a template wraps each role; texts, in the order they are written."""

    first_openings: Mapping[str, str]  # by the role of the first message
    openings: Mapping[str, str]
    closings: Mapping[str, str]
    generation_prompt: str
    trims: bool  # white space around a content is dropped
    literals: frozenset[str]  # a content with one of these may be treated differently

    def wrap(self, role: str, content: object, *, is_first: bool) -> str | None:
        """The text one message adds to a conversation; None: only rendering can tell."""
        openings = self.first_openings if is_first else self.openings
        if role not in openings or not isinstance(content, str):
            return None
        if any(literal in content for literal in self.literals):
            return None
        written = content.strip() if self.trims else content
        return f"{openings[role]}{written}{self.closings[role]}" if written else None

    def text(self, messages: Sequence[Mapping[str, str]]) -> str | None:
        """A conversation and the opening of its answer; None: only rendering can tell."""
        parts = [
            self.wrap(message["role"], message["content"], is_first=index == 0)
            for index, message in enumerate(messages)
        ]
        return None if None in parts else "".join([*map(str, parts), self.generation_prompt])


def learn(source: object, render_text: RenderText) -> PlainTemplate | None:
    """Find out how a template wraps messages; None where it does more than that."""
    try:
        return _learn_from_samples(literals_of(source), render_text)
    except (EngineError, jinja2.TemplateError, ValueError):
        return None


def literals_of(source: object) -> frozenset[str]:
    """What a template can look for in a text: its strings that are no keys and no roles.

    Raises:
        ValueError: the source is not one template.
        jinja2.TemplateError: it cannot be read.
    """
    if not isinstance(source, str):
        raise ValueError("several templates")
    tree = jinja2.Environment(autoescape=True, extensions=["jinja2.ext.loopcontrols"]).parse(source)
    keys = {id(item.arg) for item in tree.find_all(nodes.Getitem)}
    texts = {
        const.value
        for const in tree.find_all(nodes.Const)
        if isinstance(const.value, str) and id(const) not in keys
    }
    return frozenset(text for text in texts - set(ROLES) if len(text.strip()) >= MIN_LITERAL_CHARS)


def _learn_from_samples(literals: frozenset[str], render_text: RenderText) -> PlainTemplate:
    """The wrapping that explains all samples.

    Raises:
        ValueError: there is none.
        EngineError: the template refuses a sample.
    """
    contents = [f"turn {number} is here" for number in range(len(SAMPLE_ROLES))]
    first_openings: dict[str, str] = {}
    openings: dict[str, str] = {}
    closings: dict[str, str] = {}
    prompts: dict[str, str] = {}
    for turns in _samples(contents):
        texts = ["", *(render_text(turns[:stop], False) for stop in range(1, len(turns) + 1))]
        for number, (before, text) in enumerate(pairwise(texts), start=1):
            role, content = turns[number - 1]["role"], turns[number - 1]["content"]
            opening, closing = _after(before, text).split(content)
            _agree(openings if before else first_openings, role, opening)
            _agree(closings, role, closing)
            if role == "user":
                _agree(prompts, "assistant", _after(text, render_text(turns[:number], True)))
    for trims in (False, True):
        template = PlainTemplate(
            first_openings, openings, closings, prompts["assistant"], trims, literals
        )
        if all(template.text(turns) == render_text(turns, True) for turns in _samples(EDGES)):
            return template
    raise ValueError("it changes contents")


def _samples(contents: Sequence[str]) -> list[list[dict[str, str]]]:
    """The sample with and without a system prompt."""
    turns = [
        {"role": role, "content": content}
        for role, content in zip(SAMPLE_ROLES, cycle(contents), strict=False)
    ]
    return [turns, turns[1:]]


def _after(before: str, text: str) -> str:
    if not text.startswith(before):
        raise ValueError("a later turn changes how an earlier one is written")
    return text[len(before) :]


def _agree(known: dict[str, str], role: str, text: str) -> None:
    if known.setdefault(role, text) != text:
        raise ValueError(f"{role} is wrapped in two ways")
