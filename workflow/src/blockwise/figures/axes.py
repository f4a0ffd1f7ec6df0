"""The two x axes of the study: arms side by side, and amounts.

`Sizes` stands arms next to each other: sequential, then ever smaller history blocks, which is
more and more workers; several such rows stand beside each other where something else varies
too. `Amounts` is a number line of tokens. Both keep marks that share a place apart.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from blockwise.config.arms import SEQUENTIAL
from blockwise.figures import style

DODGE = 0.14  # distance of marks that share a place, in units of the distance of places
MAX_SPREAD = 0.7  # all of them together, so that places stay apart
DODGE_OCTAVES = 0.06  # the same on a logarithmic number line
GAP = 0.6  # extra distance between the rows of arms, in the same units
TICK_AIR_IN = 0.07  # between two tick labels
MIN_PLACE_IN = 0.2  # a mark with its bar
MIN_PANEL_IN = 1.0  # below it a panel reads badly
MAX_COUNT = 20  # whole amounts below it are counts, of which there is no half
AMOUNTS_PANEL_IN = 1.3  # room for the ticks of a number line

Slot = tuple[Any, tuple[Any, ...]]  # value of `outer`, values of `inner`


def size_words(tokens: Any) -> str:
    """A number of tokens in short: 4k for 4096 and for 4000."""
    for unit in (1024, 1000):
        if tokens >= unit and tokens % unit == 0:
            return f"{int(tokens) // unit}k"
    return str(int(tokens))


def thousands(value: float, _position: int | None = None) -> str:
    """A tick of an amount: 1.5k for 1500, 2M for two million."""
    for unit, letter in ((1_000_000, "M"), (1000, "k")):
        if value >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


def distinct_words(sizes: Sequence[Any]) -> dict[Any, str]:
    """Sizes in short, or in full where short forms would coincide."""
    short = {size: size_words(size) for size in sizes}
    if len(set(short.values())) == len(short):
        return short
    return {size: str(int(size)) for size in sizes}


def lane_shifts(lanes: Sequence[Any], dodge: float) -> dict[Any, float]:
    """How far each of the marks that share a place stands from its middle."""
    step = min(dodge, dodge * MAX_SPREAD / DODGE / max(1, len(lanes)))
    return {lane: step * (index - (len(lanes) - 1) / 2) for index, lane in enumerate(lanes)}


def known(value: Any) -> Any:
    """The value, or None where it is absent."""
    return None if pd.isna(value) else value


def _keys(rows: pd.DataFrame, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """The values of these columns, row by row."""
    values = [rows[name].tolist() for name in columns]
    return [tuple(known(value) for value in row) for row in zip(*values, strict=True)]


@dataclass(frozen=True)
class Sizes:
    """Arms side by side, once for each value of the column `outer` where there is one."""

    label: str = "block size B (tokens)"
    outer: str | None = None
    outer_words: Callable[[Any], str] = str
    inner: tuple[str, ...] = ("block_size_tokens",)
    inner_words: Mapping[str, str] = field(default_factory=dict)  # further lines of a label
    num_workers: str | None = None  # column of their realised number, a line of the labels
    sized: bool = False  # the size of a mark says nothing: B is read from the axis
    label_column: None = None

    def label_of(self, _group: pd.DataFrame) -> str:
        """The name of the axis below a column of panels."""
        return self.label

    @property
    def line_columns(self) -> tuple[str, ...]:
        """Marks that agree in these are joined by a line."""
        return ("arm", *([self.outer] if self.outer else []), *self.inner[1:])

    def slots(self, group: pd.DataFrame) -> dict[Slot, float]:
        """Where each arm stands; sequential first, then B descending."""
        is_placed = (group["arm"] == SEQUENTIAL) | group["block_size_tokens"].notna()
        rows = list(dict.fromkeys(self._slot_keys(group[is_placed])))
        outers = list(dict.fromkeys(outer for outer, _ in rows))
        rows.sort(key=lambda slot: (outers.index(slot[0]), _descending(slot[1])))
        return {slot: place + GAP * outers.index(slot[0]) for place, slot in enumerate(rows)}

    def places(self, group: pd.DataFrame, variants: Sequence[str]) -> pd.Series:
        """The x of each mark; marks that share a slot stand beside each other."""
        slots = self.slots(group)
        is_parallel = (group["arm"] != SEQUENTIAL).tolist()
        lanes = list(zip(is_parallel, _keys(group, ["arm", *variants]), strict=True))
        drawn = itertools.compress(lanes, group["level"].isna())
        shifts: dict[Any, float] = {}
        for _, mates in itertools.groupby(sorted(set(drawn), key=str), lambda lane: lane[0]):
            shifts |= lane_shifts(list(mates), DODGE)
        places = [
            slots.get(slot, np.nan) + shifts.get(lane, np.nan)
            for slot, lane in zip(self._slot_keys(group), lanes, strict=True)
        ]
        return pd.Series(places, index=group.index, dtype="float64")

    def span(self, group: pd.DataFrame, mark: pd.Series) -> tuple[float, float]:
        """From where to where a level line runs along the row of arms of a mark."""
        return self._span(self.slots(group), known(mark[self.outer]) if self.outer else None)

    def _span(self, slots: Mapping[Slot, float], outer: Any) -> tuple[float, float]:
        own = [place for (key, _), place in slots.items() if key == outer]
        return min(own) - 0.5, max(own) + 0.5

    def width_in(self, group: pd.DataFrame) -> float:
        """Width that the labels of this group's panels need."""
        slots = self.slots(group)
        widths = [_label_width_in(word) for word in self._inner_labels(group, slots)]
        return max(MIN_PANEL_IN, max([MIN_PLACE_IN, *widths]) * self._num_places(slots))

    def num_label_lines(self, group: pd.DataFrame, panel_in: float) -> int:
        """Lines of text below the lowest panel, the name of the axis left out."""
        inner, outer = self._labels(group, panel_in)
        return sum(max([0, *(word.count("\n") + 1 for word in words)]) for words in (inner, outer))

    def dress(self, ax: Axes, group: pd.DataFrame, panel_in: float, *, labelled: bool) -> None:
        """Ticks and limits; labels below the lowest panel only."""
        slots = self.slots(group)
        ax.set_xlim(-0.5, max([0.0, *slots.values()]) + 0.5)
        inner, outer = self._labels(group, panel_in)
        ax.set_xticks(list(slots.values()), inner if labelled else [""] * len(slots))
        if not self.outer:
            return
        outers = list(dict.fromkeys(key for key, _ in slots))
        spans = [self._span(slots, key) for key in outers]
        for (_, end), (start, _) in itertools.pairwise(spans):
            ax.axvline((end + start) / 2, color="0.8", linewidth=0.6)
        ax.xaxis.remove_overlapping_locs = False  # a row of arms may be labelled below one
        middles = [(start + end) / 2 for start, end in spans]
        ax.set_xticks(middles, outer if labelled else [""] * len(outer), minor=True)
        num_lines = max([1, *(word.count("\n") + 1 for word in inner)])
        below_pt = 7.0 + 72 * style.LINE_HEIGHT_IN * num_lines
        ax.tick_params(axis="x", which="minor", length=0, pad=below_pt)

    def _slot_keys(self, rows: pd.DataFrame) -> list[Slot]:
        outers = _keys(rows, [self.outer]) if self.outer else [(None,)] * len(rows)
        inners = _keys(rows, ["arm", *self.inner])
        return [
            (outer, (arm != SEQUENTIAL, *values))
            for (outer,), (arm, *values) in zip(outers, inners, strict=True)
        ]

    def _inner_labels(self, group: pd.DataFrame, slots: Mapping[Slot, float]) -> list[str]:
        sizes = distinct_words(sorted({inner[1] for _, inner in slots if inner[1] is not None}))
        workers = self._num_workers(group)
        return [
            "\n".join([*self._inner_lines(slot[1], sizes), *workers.get(slot, [])])
            for slot in slots
        ]

    def _num_workers(self, group: pd.DataFrame) -> dict[Slot, list[str]]:
        """The line that tells how many workers the arms of a slot had: a number or a range."""
        if self.num_workers is None:
            return {}
        seen = group.dropna(subset=[self.num_workers])
        numbers: dict[Slot, list[float]] = {}
        for slot, number in zip(self._slot_keys(seen), seen[self.num_workers], strict=True):
            numbers.setdefault(slot, []).append(float(number))
        ends = {slot: sorted({min(found), max(found)}) for slot, found in numbers.items()}
        return {slot: ["–".join(f"{end:g}" for end in both)] for slot, both in ends.items()}

    def _inner_lines(self, inner: tuple[Any, ...], sizes: Mapping[Any, str]) -> list[str]:
        is_parallel, size, *further = inner
        lines = [sizes[size] if is_parallel else "seq."]
        for name, value in zip(self.inner[1:], further, strict=True):
            if value is not None:
                lines.append(self.inner_words[name].format(value))
        return lines

    def _labels(self, group: pd.DataFrame, panel_in: float) -> tuple[list[str], list[str]]:
        """Labels of the slots, and of the rows of arms below them."""
        slots = self.slots(group)
        if not self.outer:
            return self._inner_labels(group, slots), []
        place_in = panel_in / self._num_places(slots)
        outers = list(dict.fromkeys(key for key, _ in slots))
        labels = []
        for outer in outers:
            num_own = sum(key == outer for key, _ in slots)
            own_in = (num_own + GAP) * place_in - TICK_AIR_IN
            labels.append(style.wrapped(self.outer_words(outer), own_in))
        return self._inner_labels(group, slots), labels

    def _num_places(self, slots: Mapping[Slot, float]) -> float:
        """Length of the axis, in distances of places."""
        return max([0.0, *slots.values()]) + 1


@dataclass(frozen=True)
class Amounts:
    """A number line of tokens; the size of a mark tells block sizes apart."""

    x: str
    label: str
    line_columns: tuple[str, ...]
    log2: bool = True
    ticks: str | None = None  # column of the configured amounts; None: round numbers
    dodged: bool = False  # amounts that are configured coincide, measured ones do not
    x_low: str | None = None
    x_high: str | None = None
    sized: bool = True
    outer: None = None
    label_column: str | None = None  # names the axis of each column of panels, instead of `label`

    def label_of(self, group: pd.DataFrame) -> str:
        """The name of the axis below a column of panels."""
        return str(group[self.label_column].iloc[0]) if self.label_column else self.label

    def places(self, group: pd.DataFrame, variants: Sequence[str]) -> pd.Series:
        """The x of each mark."""
        places = group[self.x].astype("float64")
        if not self.dodged:
            return places
        lanes = _keys(group, ["arm", "block_size_tokens", *variants])
        shifts = lane_shifts(sorted(set(lanes), key=str), DODGE_OCTAVES)
        factors = [2 ** shifts[lane] for lane in lanes]
        return pd.Series(places.to_numpy() * factors, index=group.index)

    def width_in(self, _group: pd.DataFrame) -> float:
        """Width that this group's panels need."""
        return AMOUNTS_PANEL_IN

    def num_label_lines(self, _group: pd.DataFrame, _panel_in: float) -> int:
        """Lines of text below the lowest panel, the name of the axis left out."""
        return 1

    def dress(self, ax: Axes, group: pd.DataFrame, panel_in: float, *, labelled: bool) -> None:
        """Scale, ticks and limits; labels below the lowest panel only."""
        columns = [name for name in (self.x, self.x_low, self.x_high, self.ticks) if name]
        ends = group[columns].astype("float64").to_numpy().ravel()
        ends = ends[~np.isnan(ends)]
        low, high = (float(ends.min()), float(ends.max())) if len(ends) else (1.0, 1.0)
        if self.log2:
            air = 0.3 + 0.06 * np.log2(high / low)
            ax.set_xscale("log", base=2)
            ax.set_xlim(low / 2**air, high * 2**air)
            ax.xaxis.set_minor_locator(NullLocator())
            ticks = self._ticks(group, panel_in, 2 * air + np.log2(high / low))
            words = distinct_words(ticks)
            ax.set_xticks(ticks, [words[tick] if labelled else "" for tick in ticks])
            return
        ax.set_xlim(0, 1.08 * high)
        is_count = len(ends) > 0 and high < MAX_COUNT and bool((ends == ends.round()).all())
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=is_count))
        ax.xaxis.set_major_formatter(FuncFormatter(thousands if labelled else _nothing))

    def _ticks(self, group: pd.DataFrame, panel_in: float, num_octaves: float) -> list[float]:
        """The configured amounts, from the longest, as many as have room."""
        amounts = sorted(group[self.ticks or self.x].dropna().astype("float64").unique())
        words = distinct_words(amounts)
        kept: list[float] = []
        for amount in reversed(amounts):
            if kept:
                apart_in = np.log2(kept[-1] / amount) / num_octaves * panel_in
                needed_in = (_label_width_in(words[amount]) + _label_width_in(words[kept[-1]])) / 2
                if apart_in < needed_in:
                    continue
            kept.append(amount)
        return kept[::-1]


XAxis = Sizes | Amounts


def value_ticks(ax: Axes, low: float, high: float, base: int) -> None:
    """Ticks of a logarithmic y axis: powers of two, or 1, 2 and 5 times powers of ten."""
    ax.set_yscale("log", base=base)
    air = (high / low) ** 0.1 * 1.1
    low, high = low / air, high * air
    ax.set_ylim(low, high)
    first, last = np.floor(np.log(low) / np.log(base)), np.ceil(np.log(high) / np.log(base))
    decades = float(base) ** np.arange(first, last + 1)
    factors = (1.0,) if base == 2 or last - first > 3 else (1.0, 2.0, 5.0)
    ticks = np.array([decade * factor for decade in decades for factor in factors])
    ticks = ticks[(ticks >= low) & (ticks <= high)]
    ticks = ticks[:: max(1, -(-len(ticks) // 5))]  # five are as many as a panel has room for
    ax.yaxis.set_major_locator(FixedLocator(list(ticks)))
    ax.yaxis.set_minor_locator(NullLocator())
    words = size_words if base == 2 and low >= 1 else thousands
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: words(value)))


def _descending(inner: tuple[Any, ...]) -> list[tuple[bool, float]]:
    """Sort key of a slot; words of a label leave the order of the table."""
    is_parallel, *values = inner
    numbers = [0 if isinstance(value, str) else value for value in values]
    return [(is_parallel, 0.0), *((value is not None, -(value or 0)) for value in numbers)]


def _label_width_in(text: str) -> float:
    return TICK_AIR_IN + style.CHARACTER_WIDTH_IN * max(len(line) for line in text.split("\n"))


def _nothing(_value: float, _position: int | None = None) -> str:
    return ""
