"""Lessons as tokens: what the model reads, and which tokens it must predict."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from blockwise.models.random_backbone import BOS_TOKEN, END_TOKEN
from blockwise.models.renderer import Message
from blockwise.pocket.attention import Segment
from blockwise.pocket.lessons import Lesson, Reply

UNLABELLED = -100  # what torch's cross entropy leaves out


@dataclass(frozen=True)
class TokenLesson:
    """A lesson in tokens: its history, then what each conversation adds to it.

    Attributes:
        skill: of the lesson.
        ids: tokens.
        positions: of each token in its own conversation, from 0.
        labels: what each token should have been foretold as; UNLABELLED where nobody is to say it.
        kinds: the kind of the reply that each labelled token belongs to; `compact` for
            summaries, whatever the layout.
        segments: the history, then the conversations.
    """

    skill: str
    ids: list[int]
    positions: list[int]
    labels: list[int]
    kinds: list[str]
    segments: list[Segment]


class LessonEncoder:
    """Writes lessons as the chat template does, reply by reply.

    Args:
        tokenizer: of the pocket backbones.
        reasoning: replies open with their thought in thinking tags.
    """

    def __init__(self, tokenizer: Any, *, reasoning: bool) -> None:
        self._tokenizer, self._reasoning = tokenizer, reasoning

    def encode(self, lesson: Lesson) -> TokenLesson:
        """The tokens of a lesson; every reply and the token that ends it are labelled."""
        known: dict[str, list[int]] = {}  # most messages come in every conversation

        def shown(messages: Iterable[Message]) -> list[int]:
            ids = self._ids(BOS_TOKEN)
            for text in map(_rendered, messages):
                if text not in known:
                    known[text] = self._ids(text)
                ids += known[text]
            return ids

        ids = shown(lesson.history)
        history = list(ids)
        positions, labels = list(range(len(ids))), [UNLABELLED] * len(ids)
        kinds: list[str] = []
        segments = [Segment(0, len(ids), 0)]
        for messages, reply in lesson.conversations:
            asked = shown(messages) + self._ids("<|assistant|>")
            said = self._ids(self.reply_text(reply) + END_TOKEN)
            same = takewhile(lambda pair: pair[0] == pair[1], zip(history, asked, strict=False))
            fork = sum(1 for _ in same)
            added = asked[fork:] + said
            segments.append(Segment(len(ids), len(ids) + len(added), fork))
            ids += added
            positions += range(fork, fork + len(added))
            labels += [UNLABELLED] * (len(asked) - fork) + said
            kinds += [reply.kind if lesson.skill == "answer" else lesson.skill] * len(said)
        return TokenLesson(lesson.skill, ids, positions, labels, kinds, segments)

    def reply_text(self, reply: Reply) -> str:
        """What the backbone generates, up to the token that ends it."""
        is_plain = not self._reasoning or reply.kind == "recite"
        thinking = "" if is_plain else f"<think>{reply.thought}</think>"
        return thinking + reply.text

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def _rendered(message: Message) -> str:
    return f"<|{message['role']}|>{message['content']}{END_TOKEN}"


def in_batches(lessons: Iterable[TokenLesson], max_tokens: int) -> list[list[TokenLesson]]:
    """Lessons in their order, as many to a batch as stay within so many tokens, at least one."""
    batches: list[list[TokenLesson]] = []
    num_tokens = 0
    for lesson in lessons:
        num_tokens += len(lesson.ids)
        if not batches or num_tokens > max_tokens:
            batches.append([])
            num_tokens = len(lesson.ids)
        batches[-1].append(lesson)
    return batches


def in_a_row(lessons: Sequence[TokenLesson]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, positions and labels of lessons one behind the other, [1, tokens] each."""
    ids, positions, labels = (
        torch.tensor([[value for lesson in lessons for value in getattr(lesson, name)]])
        for name in ("ids", "positions", "labels")
    )
    return ids, positions, labels
