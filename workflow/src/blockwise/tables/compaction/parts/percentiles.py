"""Percentiles of pooled values: the latencies of requests, the stalls of compactions.

They are by nearest rank, so nothing is interpolated. A percentile that so few values have would be
their maximum; it is left out, and the maximum stands beside.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from blockwise.tables.columns import Column, ColumnKind, count, seconds
from blockwise.tables.compaction.parts import measures

MIN_VALUES = {50: 1, 95: 20, 99: 100}
"""Values below which a percentile, by nearest rank, is the maximum of the sample."""


@dataclass(frozen=True)
class Percentiles:
    """A time of which a row shows percentiles, over all values of its valid cells."""

    name: str
    meaning: str
    percents: tuple[int, ...]
    of_what: str = "requests"  # what has such a time

    def columns(self) -> list[Column]:
        """The percentiles, the maximum, and the number of values behind them."""
        return [
            *(
                seconds(f"{self.name}_p{percent}_s", self._words(percent))
                for percent in self.percents
            ),
            seconds(f"{self.name}_max_s", f"{self.meaning}: the longest."),
            count(
                f"{self.name}_num_{self.of_what}",
                f"{self.of_what.capitalize()} behind the {self.name} columns, of all valid cells.",
                ColumnKind.TIMED,
            ),
        ]

    def values(self, found: Iterable[float | None]) -> dict[str, Any]:
        """The columns over these times; what has none takes no part."""
        known = [value for value in found if value is not None]
        return {
            **{
                f"{self.name}_p{percent}_s": measures.percentile(known, percent / 100)
                if len(known) >= MIN_VALUES[percent]
                else None
                for percent in self.percents
            },
            f"{self.name}_max_s": max(known, default=None),
            f"{self.name}_num_{self.of_what}": len(known),
        }

    def _words(self, percent: int) -> str:
        fewest = MIN_VALUES[percent]
        limit = f", empty below {fewest} {self.of_what}" if fewest > 1 else ""
        return f"{self.meaning}: {percent}th percentile by nearest rank{limit}."
