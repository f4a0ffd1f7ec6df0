"""Attention over lessons whose conversations share their openings.

A lesson is a tree two levels deep: its history, and conversations that follow the history up to
some token and then go on alone. It is laid out in one row, the history read once, and every
conversation attends to its part of the history and to itself; so a question costs its own tokens,
not those of the documents that it is asked on, and no question sees another.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface

SHARED_OPENINGS = "shared_openings"
"""Name of this attention in a model's configuration."""

GROUP_TOKENS = 256  # conversations that leave a history at one place are attended to together


@dataclass(frozen=True)
class Segment:
    """Tokens [start, stop) of a lesson, which follow its first `fork` tokens."""

    start: int
    stop: int
    fork: int


@dataclass(frozen=True)
class Reach:
    """Queries [start, stop) of a row see keys [opening, opening + fork) and, masked, themselves.

    Attributes:
        mask: [queries, fork + queries], what is added to the scores; None: causal, without fork.
    """

    start: int
    stop: int
    opening: int
    fork: int
    mask: Tensor | None


def reaches_of(lessons: Sequence[Sequence[Segment]], dtype: torch.dtype) -> list[Reach]:
    """How the segments of lessons that stand in one row, one behind the other, attend.

    Args:
        lessons: the segments of each, the history first.
        dtype: of the scores.
    """
    reaches = []
    opening = 0
    for segments in lessons:
        for group in _groups(segments):
            start, stop = opening + group[0].start, opening + group[-1].stop
            mask = _mask(group, dtype) if group[0].fork else None
            reaches.append(Reach(start, stop, opening, group[0].fork, mask))
        opening += segments[-1].stop
    return reaches


def _groups(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Neighbours with one fork, together up to `GROUP_TOKENS` or one longer."""
    for fork, alike in groupby(segments, key=lambda segment: segment.fork):
        group: list[Segment] = []
        for segment in alike:
            if group and (not fork or segment.stop - group[0].start > GROUP_TOKENS):
                yield group
                group = []
            group.append(segment)
        yield group


def _mask(group: Sequence[Segment], dtype: torch.dtype) -> Tensor:
    first, fork = group[0].start, group[0].fork
    num_queries = group[-1].stop - first
    mask = torch.full((num_queries, fork + num_queries), float("-inf"), dtype=dtype)
    mask[:, :fork] = 0.0
    for segment in group:
        start, stop = segment.start - first, segment.stop - first
        own = torch.full((stop - start, stop - start), float("-inf"), dtype=dtype).triu(1)
        mask[start:stop, fork + start : fork + stop] = own
    return mask


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    reaches: Sequence[Reach],
    **_: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in every layer.

    Shapes:
        query: [1, heads, tokens, head size]; key, value: [1, key-value heads, tokens, head size].
        returned: [1, tokens, heads, head size].
    """
    repeats = query.size(1) // key.size(1)
    key, value = (part.repeat_interleave(repeats, dim=1) for part in (key, value))
    parts = []
    for reach in reaches:
        own, before = (
            slice(reach.start, reach.stop),
            slice(reach.opening, reach.opening + reach.fork),
        )
        keys, values = key[:, :, own], value[:, :, own]
        if reach.fork:
            keys = torch.cat([key[:, :, before], keys], dim=2)
            values = torch.cat([value[:, :, before], values], dim=2)
        parts.append(
            functional.scaled_dot_product_attention(
                query[:, :, own],
                keys,
                values,
                attn_mask=reach.mask,
                is_causal=reach.mask is None,
                scale=scaling,
            )
        )
    return torch.cat(parts, dim=2).transpose(1, 2), None


AttentionInterface.register(SHARED_OPENINGS, attend)
