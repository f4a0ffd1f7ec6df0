"""How long a playback takes: decode steps and prefills priced in seconds.

A batched engine decodes one token of every running request in a step. A step costs a fixed
part (weights are read once), a part for each request, and a part for each token of context
that its attention reads; a prefill costs its new tokens, and each of those the context before it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from blockwise.estimate.dry_engine import Pace, Sent

TYPICAL_CONTEXT_TOKENS = 2048  # of a bystander's or a worker's prefill; the order is enough
SMALLEST_STEPS = 2.0**-16  # less is nothing


@dataclass(frozen=True)
class Speed:
    """Prices of one server. Units: seconds."""

    step_s: float  # of a step, whatever it decodes
    step_request_s: float  # and for each running request
    step_context_token_s: float  # and for each token of context of each
    prefill_token_s: float
    prefill_context_token_s: float  # for each new token and each token of its prompt
    request_s: float  # client, network and scheduling, once for requests sent together
    startup_s: float
    source: str  # in words


def pace_of(speed: Speed) -> Pace:
    """The pace of a server, in powers of four: backbones of like speed share playbacks."""
    step_s = speed.step_s + speed.step_request_s
    prefill_s = speed.prefill_token_s + TYPICAL_CONTEXT_TOKENS * speed.prefill_context_token_s
    return Pace(_power_of_four(speed.request_s / step_s), _power_of_four(prefill_s / step_s))


def _power_of_four(value: float) -> float:
    return float(4.0 ** round(math.log(max(value, SMALLEST_STEPS), 4)))


def playback_s(sent: Sequence[Sent], speed: Speed, side_by_side: int = 1) -> float:
    """Seconds of one cell while `side_by_side` cells like it share the engine.

    Each of its requests then runs beside as many like it from the other cells.
    """
    prefill_s = sum(
        one.uncached_tokens
        * (speed.prefill_token_s + speed.prefill_context_token_s * one.prompt_tokens)
        for one in sent
    )
    waves = len({round(one.begin_step, 6) for one in sent})
    return _decode_s(sent, speed, side_by_side) + side_by_side * prefill_s + waves * speed.request_s


def _decode_s(sent: Sequence[Sent], speed: Speed, side_by_side: int) -> float:
    """Sweep over the steps: between two changes the same requests run."""
    changes: list[tuple[float, int, int]] = []
    for one in sent:
        begin = one.end_step - one.decoded_tokens  # its prefill is priced apart
        context = one.prompt_tokens + one.decoded_tokens // 2
        changes += [(begin, 1, context), (one.end_step, -1, -context)]
    changes.sort()
    seconds, running, context, last = 0.0, 0, 0, 0.0
    for step, more, tokens in changes:
        if running:
            per_step = speed.step_s + side_by_side * (
                running * speed.step_request_s + context * speed.step_context_token_s
            )
            seconds += (step - last) * per_step
        running, context, last = running + more, context + tokens, step
    return seconds
