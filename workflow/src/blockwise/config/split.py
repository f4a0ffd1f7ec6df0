"""How a batch is split into jobs that fit a wall-clock limit: by phase, then into shards.

A batch is all cells of one backbone and dataset. Split, its timing blocks and its recall cells
are played by jobs of their own, each phase in so many shards. Parts are a matter of scheduling:
nothing of them is in a cell's key, and another split finds the cells that are finished.
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from pydantic import Field

from blockwise.config.base import ConfigModel
from blockwise.config.experiments import Experiment

PART_PATTERN = r"(?:timing|recall)-[0-9]+of[0-9]+"
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

    @property
    def name(self) -> str:
        """As it stands in file names: `timing-1of4`."""
        return f"{self.phase}-{self.shard}of{self.num_shards}"

    @classmethod
    def parse(cls, name: str) -> "Part":
        """The part of a name.

        Raises:
            ValueError: no part is called so.
        """
        match = re.fullmatch(r"(?P<phase>timing|recall)-(?P<shard>\d+)of(?P<of>\d+)", name)
        if match is None or not 1 <= int(match["shard"]) <= int(match["of"]):
            raise ValueError(f"{name!r} is no part of a batch; one is called `timing-1of4`")
        return cls(Phase(match["phase"]), int(match["shard"]), int(match["of"]))


class BatchSplit(ConfigModel):
    """A batch as several jobs: timing and recall apart, each in so many shards."""

    timing: int = Field(1, ge=1, description="Jobs that share the timing blocks.")
    recall: int = Field(1, ge=1, description="Jobs that share all other cells.")

    def parts(self, experiments: Iterable[Experiment]) -> list[Part]:
        """The jobs that these experiments need; a phase that none of them has is left out."""
        needed = {
            Phase.TIMING if experiment.is_timed else Phase.RECALL for experiment in experiments
        }
        numbers = {Phase.TIMING: self.timing, Phase.RECALL: self.recall}
        return [
            Part(phase, shard, number)
            for phase, number in numbers.items()
            if phase in needed
            for shard in range(1, number + 1)
        ]
