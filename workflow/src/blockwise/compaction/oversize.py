"""What does not fit the window: caps that shrink to the room, layouts that fit, and pieces.

A window may be smaller than what a worker would be shown: its history block with everything before
it, or one tool's result alone. Where that is said before anything is sent, nothing is paid for it.
A piece is a span of at most what fits, cut between two tokens wherever it falls, inside a tool
round too, and shown by itself as the text of a transcript.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from blockwise.compaction.compactor import CompactionRule, Compactor, Plan
from blockwise.compaction.fences import fence, fenced
from blockwise.compaction.history import Cut, History, slice_turns
from blockwise.compaction.partition import HistoryBlock, token_pieces
from blockwise.config.arms import known_layouts
from blockwise.config.choices import VolumeMode
from blockwise.errors import CompactionError
from blockwise.models.renderer import Message, Renderer
from blockwise.models.tool_text import in_words
from blockwise.serving.client import ChatRequest, EngineClient

MIN_ANSWER_TOKENS = 64  # a summary of a history block in less is cut off in its second sentence
PIECE_MARK = "TRANSCRIPT"
PIECE_SCOPE = "Now summarize the text between {} and {}: part {} of {} of a conversation."
TRANSCRIPT_SHARE = 0.9  # of the room: a transcript's own words are not those of the template
MAX_CUTS = 6  # each time with a tenth less


def with_room(
    requests: Sequence[ChatRequest], window_tokens: int, renderer: Renderer
) -> list[ChatRequest] | None:
    """The requests with caps lowered to what the window leaves; None: one does not fit."""
    fitted = []
    for request in requests:
        room = window_tokens - renderer.count(request.messages, add_generation_prompt=True)
        needed = request.max_tokens if request.is_forced else MIN_ANSWER_TOKENS
        if room < min(needed, request.max_tokens):
            return None
        fitted.append(replace(request, max_tokens=min(request.max_tokens, room)))
    return fitted


def why_it_does_not_fit(
    plan: Plan, rule: CompactionRule, engine: EngineClient, renderer: Renderer, seed: int
) -> str:
    """What is too long, and which layouts would fit."""
    window_tokens = engine.window_tokens
    longest = max(
        renderer.count(request.messages, add_generation_prompt=True) for request in plan.requests
    )
    fitting = []
    for layout in known_layouts() if rule.block_size_tokens is not None else ():
        other = Compactor(engine, renderer, replace(rule, layout=layout))
        requests = other.plan(plan.history, None, seed, turn_range=plan.turn_range).requests
        if with_room(requests, window_tokens, renderer) is not None:
            fitting.append(layout)
    named = f"use the layout {' or '.join(fitting)}, or " if fitting else ""
    return (
        f"a worker of the layout {rule.layout} would read {longest} tokens and write "
        f"{plan.requests[0].max_tokens}; the window has {window_tokens}. {named}have it cut into "
        "pieces (on_oversize: split), or lower tau"
    )


def plan_of_pieces(
    plan: Plan, rule: CompactionRule, engine: EngineClient, renderer: Renderer
) -> Plan:
    """The same compaction by pieces that fit, each shown alone.

    Raises:
        CompactionError: the verbatim head and the prompt leave no room for any.
    """
    prompt = rule.prompt
    empty = HistoryBlock(Cut(plan.summarised[0]), Cut(plan.summarised[0]), 0)
    shown = piece_messages(plan.history, [empty], 0, prompt)
    around = renderer.count(shown, add_generation_prompt=True)
    answer_tokens = plan.requests[0].max_tokens
    if rule.volume_mode is VolumeMode.NATURAL:
        answer_tokens = min(answer_tokens, max(MIN_ANSWER_TOKENS, engine.window_tokens // 4))
    room = engine.window_tokens - around - answer_tokens
    size = min(rule.block_size_tokens or room, math.floor(TRANSCRIPT_SHARE * room))
    for _ in range(MAX_CUTS):
        if size < 1:
            break
        pieces = token_pieces(plan.history, plan.summarised, size, renderer)
        requests = [
            replace(
                plan.requests[0],
                messages=piece_messages(plan.history, pieces, index, prompt),
                max_tokens=answer_tokens,
                min_tokens=answer_tokens if plan.requests[0].is_forced else 0,
            )
            for index in range(len(pieces))
        ]
        fitted = with_room(requests, engine.window_tokens, renderer)
        if fitted is not None:
            return replace(
                plan,
                blocks=tuple(pieces),
                block_content=(plan.block_content[0],) * len(pieces),
                requests=tuple(fitted),
                is_split=True,
            )
        size = math.floor(TRANSCRIPT_SHARE * size)
    raise CompactionError(
        f"the system messages and the prompt take {around} tokens and an answer {answer_tokens}; "
        f"the window of {engine.window_tokens} leaves no room for a piece of the history. Shorten "
        "them, or use a model with a larger window"
    )


def piece_messages(
    history: History, pieces: Sequence[HistoryBlock], index: int, prompt: str
) -> list[Message]:
    """The verbatim head, and a piece as the text of a transcript with what is asked of it."""
    turns = slice_turns(history.turns, *pieces[index].span)
    said = in_words([turn.message() for turn in turns])
    text = "\n\n".join(f"{message['role']}: {message['content']}" for message in said)
    marks = fence(PIECE_MARK, text)
    scope = PIECE_SCOPE.format(*marks, index + 1, len(pieces))
    request = {"role": "user", "content": f"{fenced(PIECE_MARK, text)}\n\n{scope}\n\n{prompt}"}
    head = history.turns[: history.num_system_turns]
    return [*(turn.message() for turn in head), request]
