"""Templates that write one tool round after another: counted by round, without rendering.

A tool round is an assistant's message with calls and the results behind it; any other message is a
round of its own. Templates that know tools wrap a result by its neighbours, so a message alone does
not tell what it adds to a conversation; a round does. Whether a template writes rounds one after
another is found out on samples, and what it might look for in a text is read from its source
(blockwise.models.plain_template). Whatever is not proven here is rendered.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from blockwise.errors import EngineError
from blockwise.models.plain_template import RenderText, literals_of

Round = Sequence[dict[str, Any]]

LEAD = {"role": "user", "content": "Go on."}
ANSWER = {"role": "assistant", "content": "Noted."}


@dataclass(frozen=True)
class RoundTemplate:
    """Writes the head of a conversation, and then a text a round."""

    render_text: RenderText  # as the agent's requests are rendered, its tools in the head
    render_bare: RenderText  # without tools, which would be written out for every round
    literals: frozenset[str]  # a content with one of these may be treated differently
    generation_prompt: str

    def head_text(self, head: Round) -> str:
        """Leading system messages and the first round, where templates write the tools.

        Raises:
            EngineError: the template refuses them.
        """
        return self.render_text(head, False)

    def with_round(self, messages: Round) -> tuple[str, str] | None:
        """A short conversation without and with a round; None: only the whole can tell."""
        contents = (str(message.get("content") or "") for message in messages)
        if any(literal in content for content in contents for literal in self.literals):
            return None
        before = [LEAD, ANSWER] if messages[0]["role"] == LEAD["role"] else [LEAD]
        try:
            shorter = self.render_bare(before, False)
            longer = self.render_bare([*before, *messages], False)
        except EngineError:
            return None
        return (shorter, longer) if longer.startswith(shorter) else None


def learn(source: object, render_text: RenderText, render_bare: RenderText) -> RoundTemplate | None:
    """Find out whether a template writes round after round; None where it does not."""
    try:
        literals = literals_of(source)
        prompts = {
            render_text(sample[:stop], True)[len(render_text(sample[:stop], False)) :]
            for sample in SAMPLES
            for start, stop in rounds(sample)
            if sample[stop - 1]["role"] in {"user", "tool"}
        }
        if len(prompts) != 1:
            return None
        template = RoundTemplate(render_text, render_bare, literals, *prompts)
        is_so = all(_is_written_by_round(template, sample) for sample in SAMPLES)
    except (EngineError, jinja2.TemplateError, ValueError):
        return None
    return template if is_so else None


def round_stop(messages: Sequence[dict[str, Any]], start: int) -> int:
    """Where the round that begins with a message ends: behind the results that follow it."""
    stop = start + 1
    while stop < len(messages) and messages[stop]["role"] == "tool":
        stop += 1
    return stop


def rounds(messages: Sequence[dict[str, Any]], start: int = 0) -> Iterator[tuple[int, int]]:
    """Rounds from a message on, as [start, stop)."""
    while start < len(messages):
        stop = round_stop(messages, start)
        yield start, stop
        start = stop


def system_stop(messages: Sequence[dict[str, Any]]) -> int:
    """Where the leading system messages end."""
    first = 0
    while first < len(messages) and messages[first]["role"] == "system":
        first += 1
    return first


def head_stop(messages: Sequence[dict[str, Any]]) -> int:
    """Where the head ends: behind leading system messages and the first round."""
    first = system_stop(messages)
    return round_stop(messages, first) if first < len(messages) else first


def _is_written_by_round(template: RoundTemplate, messages: Round) -> bool:
    stop = head_stop(messages)
    text = template.head_text(messages[:stop])
    for start, end in rounds(messages, stop):
        pair = template.with_round(messages[start:end])
        if pair is None:
            return False
        shorter, longer = pair
        text += longer[len(shorter) :]
        if text != template.render_text(messages[:end], False):
            return False
    is_asked = messages[-1]["role"] == "user"
    return not is_asked or text + template.generation_prompt == template.render_text(messages, True)


def _call(number: int, **arguments: Any) -> dict[str, Any]:
    function = {"name": f"tool_{number}", "arguments": arguments}
    return {"id": f"call{number:05}", "type": "function", "function": function}


def _result(number: int, text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"call{number:05}", "content": text}


def _sample() -> list[dict[str, Any]]:
    said = {"role": "assistant", "content": "Let me see. "}
    return [
        {"role": "system", "content": "Be brief. "},
        {"role": "user", "content": " \n 1. Who?\n\n2. Why? \t"},
        {"role": "assistant", "content": "\tNobody — naïve 日本 🙂  "},
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "", "tool_calls": [_call(1, path="a/b.py", lines=[1, 2])]},
        _result(1, " line one\n\nline two \n"),
        {**said, "tool_calls": [_call(2, text="{}"), _call(3)]},
        _result(2, ""),
        _result(3, "<b>no</b>"),
        {"role": "assistant", "content": "", "tool_calls": [_call(4, deep={"x": {"y": None}})]},
        _result(4, "done"),
        {"role": "assistant", "content": " It is done.\n"},
        {"role": "user", "content": "Thanks"},
        {"role": "assistant", "content": "y"},
    ]


SAMPLES = [_sample(), _sample()[1:], [*_sample()[:2], *_sample()[4:]], [*_sample()[3:6], ANSWER]]
"""With and without a system prompt, with a call at once, and with no second exchange."""
