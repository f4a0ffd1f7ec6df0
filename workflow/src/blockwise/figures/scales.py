"""Scales of horizontal value axes: limits, and as many ticks as a narrow panel has room for.

Errors span decades, cosines crowd below one, biases lie close to zero on either side; each has a
scale on which arms can be told apart. No number is changed for it: a mark keeps the value of its
table, the axis is bent. Whether labels touch is measured, not guessed.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from blockwise.figures import style
from blockwise.figures.marks import Scale

LABEL_REACH_IN = 0.09  # how far a tick label may stand out beside its panel
LABEL_AIR_IN = 0.06  # between two tick labels
LINEAR_TO = 0.01  # of a signed log axis: a hundredth is as small as a bias that matters here
CLOSEST_TO_ONE = 1e-7  # what float32 can tell from one

Words = Callable[[float], str]


def plain(value: float, spec: str = "g") -> str:
    """A number as it is, or in this form."""
    return format(value, spec).replace("-", "\N{MINUS SIGN}")


def percent(value: float) -> str:
    """A share."""
    return f"{plain(round(100 * value, 9))}%"


def set_scale(ax: Axes, ends: Sequence[float], scale: Scale) -> None:
    """Scale and limits of an x axis, which leave some air around everything that is drawn."""
    if scale is Scale.LOG:
        ax.set_xscale("log")
        above = [end for end in ends if end > 0] or [1.0]
        air = 1.15 * (max(above) / min(above)) ** 0.06
        ax.set_xlim(min(above) / air, max(above) * air)
    elif scale is Scale.NEAR_ONE:
        ax.set_xscale("function", functions=(_nines, _from_nines))
        low, high = (float(_nines(end(ends or [0.9]))) for end in (min, max))
        air = 0.1 * (high - low) + 0.1
        ax.set_xlim(_from_nines(low - air), _from_nines(high + air))
    elif scale is Scale.SIGNED_LOG:
        ax.set_xscale("symlog", linthresh=LINEAR_TO)
        low, high = min([0.0, *ends]), max([0.0, *ends])
        ax.set_xlim(1.4 * low - 0.3 * LINEAR_TO, 1.4 * high + 0.3 * LINEAR_TO)
    elif scale is Scale.DIFFERENCE:
        low, high = min([0.0, *ends]), max([0.0, *ends])
        air = 0.1 * (high - low) or 0.1
        ax.set_xlim(low - air, high + air)
    else:
        ax.set_xlim(0.0, 1.08 * max([0.0, *ends]) or 1.0)


def set_ticks(ax: Axes, scale: Scale, words: Words, panel_in: float) -> None:
    """As many ticks as have room in a panel of this width, evenly chosen where possible."""
    low, high = ax.get_xlim()
    best: list[float] = []
    for choice in _tick_choices(scale, low, high):
        ticks = [tick for tick in sorted(set(choice)) if low <= tick <= high]
        boxes = [(tick, *_ends_in(ax, tick, words(tick), panel_in)) for tick in ticks]
        reach_in = (-LABEL_REACH_IN, panel_in + LABEL_REACH_IN)
        boxes = [box for box in boxes if reach_in[0] <= box[1] and box[2] <= reach_in[1]]
        kept = _apart(boxes)
        if len(kept) == len(boxes) > 1:
            best = kept
            break
        best = max(kept, best, key=len)
    ax.set_xticks(best, [words(tick) for tick in best])
    ax.set_xticks([], minor=True)


def _ends_in(ax: Axes, value: float, words: str, panel_in: float) -> tuple[float, float]:
    """From where to where the label of a tick reaches, from the left edge of the panel."""
    place, _ = ax.transAxes.inverted().transform(ax.transData.transform((value, 0)))
    half_in = style.text_width_in(words) / 2
    return float(place) * panel_in - half_in, float(place) * panel_in + half_in


def _apart(boxes: Sequence[tuple[float, float, float]]) -> list[float]:
    """The ticks, from the first, whose labels do not touch each other."""
    kept: list[float] = []
    end_in = -math.inf
    for tick, left_in, right_in in boxes:
        if left_in >= end_in + LABEL_AIR_IN:
            kept.append(tick)
            end_in = right_in
    return kept


def _tick_choices(scale: Scale, low: float, high: float) -> Iterator[list[float]]:
    """Ticks of an axis, from many to few."""
    if scale is Scale.LOG:
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for factors in ([1, 1.5, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]):
            yield [factor * 10.0**exponent for exponent in exponents for factor in factors]
    elif scale is Scale.NEAR_ONE:
        nines = [1 - 0.1**num for num in range(8)]
        yield [1 - (1 - end) * factor for end in nines for factor in (0.2, 0.5, 1.0)]
        yield from (nines, nines[::2])
    elif scale is Scale.SIGNED_LOG:
        decades = [LINEAR_TO * 10.0**exponent for exponent in range(4)]
        for sizes in ([LINEAR_TO / 2, *decades], decades, decades[1:]):
            yield [0.0, *sizes, *(-size for size in sizes)]
    else:
        for num_steps in (5, 4, 3, 2, 1):
            yield [
                float(tick)
                for tick in MaxNLocator(num_steps, steps=[1, 2, 5, 10]).tick_values(low, high)
            ]


def _nines(value: Any) -> Any:
    """How many nines: 1 for 0.9, 2 for 0.99."""
    return -np.log10(np.maximum(1 - np.asarray(value), CLOSEST_TO_ONE))


def _from_nines(nines: Any) -> Any:
    return 1 - 10.0 ** -np.asarray(nines)
