"""How the volume of an arm responds: to the prompt's place on the ladder, or to history blocks.

A claim about steering is about a response: a share of the input that is small at every prompt says
nothing of what the prompts did to it. In each session and seed a line is fitted through the log of
the output, over the places that were played, and the slopes are averaged. The gate is that of all
arms behind the lines, because one that a cap levels has no response of its own.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, linear_regression
from typing import Any

from blockwise.tables.columns import Column, ColumnKind, count, number
from blockwise.tables.compaction.parts import measures, natural_volume
from blockwise.tables.compaction.parts.gates import Gate, gate_column, gate_of
from blockwise.tables.compaction.parts.summaries import (
    MEANS,
    SESSION,
    cluster_of,
    statistic_words,
    summarise,
)
from blockwise.tables.inputs import LoadedCell

LADDER = ("concise", "brief", "moderate", "detailed", "very_detailed")
"""Names of the shipped prompts, from the shortest summary to the longest."""

MIN_PLACES = 2


@dataclass(frozen=True)
class Response:
    """The slope of log output over where a cell stands, over sessions and seeds."""

    name: str
    meaning: str
    place: Callable[[LoadedCell], float | None]  # None: it takes no part
    is_factor: bool  # shown as exp(slope)

    def columns(self) -> list[Column]:
        """The statistics, the sessions behind them, and the gate."""
        return [
            *(
                number(
                    f"{self.name}_{statistic}",
                    f"{self.meaning}: {statistic_words(statistic, SESSION)}.",
                    ColumnKind.SAMPLED,
                    "1",
                )
                for statistic in MEANS
            ),
            count(
                f"{self.name}_num_clusters",
                f"Sessions and seeds with {MIN_PLACES} places or more.",
                ColumnKind.SAMPLED,
            ),
            gate_column(f"{self.name}_gate", f"the {self.name} columns"),
        ]

    def values(self, cells: Iterable[LoadedCell]) -> dict[str, Any]:
        """The columns over cells that may differ in nothing else than their place."""
        distinct = {cell.record.cell_key: cell for cell in cells}.values()
        placed = [cell for cell in distinct if self.place(cell) is not None]
        slopes = list(self._slopes(placed))
        statistics, num_clusters = summarise(slopes)
        return {
            **{f"{self.name}_{one}": self._shown(statistics[one]) for one in MEANS},
            f"{self.name}_num_clusters": num_clusters,
            f"{self.name}_gate": gate_of(_gates(placed)) if slopes else None,
        }

    def _slopes(self, cells: Sequence[LoadedCell]) -> Iterable[tuple[float, str]]:
        """Slope of each session and seed with places enough; an empty output has no log."""
        outputs: dict[str, dict[float, list[int]]] = {}
        for cell in cells:
            place = self.place(cell)
            if place is not None:
                by_place = outputs.setdefault(cluster_of(cell.record), {})
                output = measures.compaction_output_tokens(cell.record)
                by_place.setdefault(place, []).append(output)
        for cluster, by_place in sorted(outputs.items()):
            if len(by_place) >= MIN_PLACES and all(map(any, by_place.values())):
                yield _slope(by_place), cluster

    def _shown(self, value: float | None) -> float | None:
        return math.exp(value) if self.is_factor and value is not None else value


def _slope(outputs: Mapping[float, Sequence[int]]) -> float:
    places = sorted(outputs)
    return linear_regression(places, [math.log(fmean(outputs[one])) for one in places]).slope


def _gates(cells: Iterable[LoadedCell]) -> set[Gate]:
    arms: dict[tuple[str, int | None, str], list[LoadedCell]] = {}
    for cell in cells:
        key = (cell.record.arm, cell.record.block_size_tokens, cell.prompt)
        arms.setdefault(key, []).append(cell)
    return {
        gate
        for own in arms.values()
        for gate in natural_volume.gates_of(
            natural_volume.column_values([cell.record for cell in own], None)
        )
    }


def _ladder_share(cell: LoadedCell) -> float | None:
    """Where a prompt stands on the ladder, from 0 to 1."""
    return LADDER.index(cell.prompt) / (len(LADDER) - 1) if cell.prompt in LADDER else None


def _log_blocks(cell: LoadedCell) -> float | None:
    return math.log(sum(one.num_blocks for one in cell.record.compactions))


LADDER_RESPONSE = Response(
    "ladder_response",
    f"Factor of the output along the whole ladder of prompts, from {LADDER[0]} to {LADDER[-1]}, by "
    "a line through the log of the output at every prompt that the arm was given; the same in each "
    "of its rows; 1: prompts do nothing",
    _ladder_share,
    is_factor=True,
)
BLOCKS_RESPONSE = Response(
    "blocks_response",
    "Slope of log output over log number of history blocks, over all block sizes of the layout and "
    "sequential, which has one; the same in each row of the layout, prompt and length; 0: block "
    "size does nothing, 1: the output is in proportion to the blocks; empty for sequential",
    _log_blocks,
    is_factor=False,
)
