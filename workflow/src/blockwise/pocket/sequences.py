"""Lessons as tokens: what the model reads, and which tokens it must predict."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from blockwise.pocket.lessons import Lesson, Reply
from blockwise.serving.random_backbone import BOS_TOKEN, END_TOKEN
from blockwise.serving.renderer import Message

UNLABELLED = -100  # what torch's cross entropy leaves out
MIN_LENGTH_FRAC = 0.75  # of a batch's longest lesson; what is shorter would be padding mostly


@dataclass(frozen=True)
class TokenLesson:
    """A lesson in tokens.

    `kinds` holds the kind of the reply that each labelled token belongs to; `compact` for
    summaries, whatever the layout.
    """

    skill: str
    ids: list[int]
    labels: list[int]
    kinds: list[str]


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
        ids = self._ids(BOS_TOKEN)
        labels = [UNLABELLED] * len(ids)
        kinds: list[str] = []
        for messages, reply in lesson.exchanges:
            shown = self._ids("".join(map(_rendered, messages)) + "<|assistant|>")
            said = self._ids(self.reply_text(reply) + END_TOKEN)
            ids += shown + said
            labels += [UNLABELLED] * len(shown) + said
            kinds += [reply.kind if lesson.skill == "answer" else lesson.skill] * len(said)
        return TokenLesson(lesson.skill, ids, labels, kinds)

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
    """Lessons of like length together, each batch of at most so many tokens, padding included."""
    batches: list[list[TokenLesson]] = []
    for lesson in sorted(lessons, key=lambda one: len(one.ids)):
        batch = batches[-1] if batches else None
        length = len(lesson.ids)
        if (
            batch is None
            or length * (len(batch) + 1) > max_tokens
            or len(batch[0].ids) < MIN_LENGTH_FRAC * length
        ):
            batches.append([lesson])
        else:
            batch.append(lesson)
    return batches


def padded(lessons: Sequence[TokenLesson]) -> tuple[Tensor, Tensor]:
    """Ids and labels, [batch, tokens], filled up on the right, where nothing looks."""
    length = max(len(lesson.ids) for lesson in lessons)
    ids = torch.zeros(len(lessons), length, dtype=torch.int64)
    labels = torch.full((len(lessons), length), UNLABELLED)
    for row, lesson in enumerate(lessons):
        ids[row, : len(lesson.ids)] = torch.tensor(lesson.ids)
        labels[row, : len(lesson.labels)] = torch.tensor(lesson.labels)
    return ids, labels
