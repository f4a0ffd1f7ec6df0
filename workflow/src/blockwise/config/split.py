"""How a batch is split into jobs: by phase, timing blocks by server start, then into shards.

A batch is all cells of one backbone and dataset. Split, its timing blocks and its recall cells
are played by jobs of their own. No job plays timing blocks of two server starts: a start is the
unit over which times are averaged, so each has a server of its own. How many shards share a
start's timing blocks, or the recall cells, is a matter of scheduling: nothing of it is in a
cell's key, and another number of shards finds the cells that are finished.
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from pydantic import Field

from blockwise.config.base import ConfigModel
from blockwise.config.experiments import Experiment

PART_PATTERN = r"(?:timing-start[0-9]+|recall)-[0-9]+of[0-9]+"
"""What the name of a part looks like, as a wildcard of the workflow."""


class Phase(StrEnum):
    """The two kinds of work in a batch."""

    TIMING = "timing"  # timing blocks: times count, so the job wants a machine of its own
    RECALL = "recall"  # everything else: texts count, cells are played beside each other


class Part(NamedTuple):
    """One job of a split batch."""

    phase: Phase
    shard: int  # from 1
    num_shards: int
    server_start: int = 0  # whose timing blocks it plays; 0 for recall

    @property
    def name(self) -> str:
        """As it stands in file names: `timing-start0-1of4`, `recall-1of2`."""
        start = f"-start{self.server_start}" if self.phase is Phase.TIMING else ""
        return f"{self.phase}{start}-{self.shard}of{self.num_shards}"

    @classmethod
    def parse(cls, name: str) -> "Part":
        """The part of a name.

        Raises:
            ValueError: no part is called so.
        """
        match = re.fullmatch(PART_PATTERN, name)
        numbers = [int(number) for number in re.findall(r"[0-9]+", name)]
        if match is None or not 1 <= numbers[-2] <= numbers[-1]:
            raise ValueError(f"{name!r} is no part of a batch; one is called `timing-start0-1of4`")
        *start, shard, num_shards = numbers
        return cls(Phase(name.partition("-")[0]), shard, num_shards, *start)


class BatchSplit(ConfigModel):
    """A batch as several jobs: timing and recall apart, each start or phase in so many shards."""

    timing: int = Field(
        1, ge=1, description="Jobs that share the timing blocks of one server start."
    )
    recall: int = Field(1, ge=1, description="Jobs that share all other cells.")

    def parts(self, experiments: Iterable[Experiment]) -> list[Part]:
        """The jobs that these experiments need; a phase that none of them has is left out."""
        played = list(experiments)
        has_recall = any(not experiment.is_timed for experiment in played)
        timing = [
            Part(Phase.TIMING, shard, self.timing, server_start)
            for server_start in range(most_server_starts(played))
            for shard in range(1, self.timing + 1)
        ]
        recall = [Part(Phase.RECALL, shard, self.recall) for shard in range(1, self.recall + 1)]
        return [*timing, *(recall if has_recall else ())]


def most_server_starts(experiments: Iterable[Experiment]) -> int:
    """Server starts on which a batch is timed: the most that an experiment asks for; or none."""
    timed = (experiment for experiment in experiments if experiment.is_timed)
    return max((experiment.num_server_starts for experiment in timed), default=0)
