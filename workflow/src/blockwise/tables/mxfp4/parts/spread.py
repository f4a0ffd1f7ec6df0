"""Statistics over units of one kind (seeds, layers, rounds) as columns of a table.

A mean always stands beside its range and the number of units behind it; an interval is given
from six units on. A difference of two arms is paired by seed, and what it says is a column too:
below six seeds, or where the interval includes zero, it is `not powered`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blockwise.statistics import (
    CONFIDENCE,
    MIN_CLUSTERS,
    Interval,
    mean_interval,
    paired_difference,
)
from blockwise.tables.columns import Column, ColumnKind, count, number, text

MEANS = ("mean", "low", "high", "min", "max", "num")
RANGE = ("mean", "min", "max")
NOT_POWERED = "not powered"


@dataclass(frozen=True)
class Spread:
    """A quantity that is summed up over units of one kind, each of which weighs the same."""

    name: str
    suffix: str  # its unit as the end of a column name
    unit: str
    meaning: str
    over: str = "seeds"
    kind: ColumnKind = ColumnKind.SAMPLED
    statistics: tuple[str, ...] = MEANS

    def columns(self) -> list[Column]:
        """One column a statistic."""
        return [self._column(statistic) for statistic in self.statistics]

    def values(self, values: Mapping[int, float]) -> dict[str, Any]:
        """The columns over values by unit; none: empty, with a number of zero."""
        return self.interval_values(interval_of(values))

    def interval_values(self, interval: Interval | None) -> dict[str, Any]:
        """The columns of an interval over units."""
        statistics = {
            "mean": interval and interval.mean,
            "low": interval and interval.low,
            "high": interval and interval.high,
            "min": interval and interval.minimum,
            "max": interval and interval.maximum,
            "num": interval.num_clusters if interval else 0,
        }
        return {self._name(statistic): statistics[statistic] for statistic in self.statistics}

    def _name(self, statistic: str) -> str:
        if statistic == "num":
            return f"{self.name}_num_{self.over}"
        return f"{self.name}_{statistic}{self.suffix}"

    def _column(self, statistic: str) -> Column:
        words = {
            "mean": f"mean over {self.over}",
            "low": f"lower end of its {CONFIDENCE:.0%} interval, empty below {MIN_CLUSTERS}",
            "high": f"upper end of its {CONFIDENCE:.0%} interval, empty below {MIN_CLUSTERS}",
            "min": f"smallest of the {self.over}",
            "max": f"largest of the {self.over}",
            "num": f"number of {self.over} behind it",
        }
        name, meaning = self._name(statistic), f"{self.meaning}: {words[statistic]}."
        if statistic == "num":
            return count(name, meaning, self.kind)
        return number(name, meaning, self.kind, self.unit)


@dataclass(frozen=True)
class LossDifference:
    """A loss of one arm less that of another, in nats a token, paired by seed."""

    name: str
    meaning: str

    @property
    def _spread(self) -> Spread:
        return Spread(self.name, "_nats", "nats", self.meaning)

    def columns(self) -> list[Column]:
        """The statistics over seeds, the t statistic, and what they say."""
        return [
            *self._spread.columns(),
            number(
                f"{self.name}_t",
                f"{self.meaning}: paired t statistic, with one degree of freedom less than seeds; "
                f"empty below {MIN_CLUSTERS} seeds and where all differences are the same.",
                ColumnKind.SAMPLED,
                "1",
            ),
            text(
                f"{self.name}_verdict",
                f"{self.meaning}: higher, lower, or {NOT_POWERED} where the interval includes "
                "zero or there is none.",
                ColumnKind.SAMPLED,
            ),
        ]

    def values(self, own: Mapping[int, float], reference: Mapping[int, float]) -> dict[str, Any]:
        """The columns over the seeds that both arms have; none: empty."""
        difference = paired_difference(_by_name(own), _by_name(reference))
        interval = difference.interval if difference else None
        return {
            **self._spread.interval_values(interval),
            f"{self.name}_t": difference.t if difference else None,
            f"{self.name}_verdict": verdict(interval, above="higher", below="lower"),
        }


def interval_of(values: Mapping[int, float]) -> Interval | None:
    """Mean over units, with an interval from six on; None without a value."""
    if not values:
        return None
    by_name = _by_name(values)
    return mean_interval(list(by_name.values()), list(by_name))


def verdict(interval: Interval | None, *, above: str, below: str) -> str | None:
    """What an interval of a difference says against zero, in a word; None without a value."""
    if interval is None:
        return None
    if interval.low is not None and interval.low > 0:
        return above
    if interval.high is not None and interval.high < 0:
        return below
    return NOT_POWERED


def _by_name(values: Mapping[int, float]) -> dict[str, float]:
    return {str(unit): value for unit, value in values.items()}
