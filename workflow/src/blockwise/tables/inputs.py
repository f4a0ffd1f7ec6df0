"""What tables are made from: finished cells and training runs, and what was measured beside them.

Every table module offers `COLUMNS` and `build(inputs)`; each takes what it needs. A part that a
run does not make is empty, and the tables that show it say so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from blockwise.compaction.judgements import Judgements
from blockwise.compaction.similarity import Similarities
from blockwise.config.mxfp4 import MXFP4
from blockwise.mxfp4.records import Diagnostics, Outliers, Speed, TrainingRun
from blockwise.serving.engine_card import EngineCard
from blockwise.tables.compaction.parts.load import LoadedCell, LoadedOmission


@dataclass(frozen=True)
class LoadedRun:
    """One training run as one experiment sees it."""

    experiment: str
    arm: str
    run: TrainingRun


@dataclass(frozen=True)
class TableInputs:
    """Everything that any table reads."""

    cells: Sequence[LoadedCell] = ()  # in the order of all tables
    omitted: Sequence[LoadedOmission] = ()
    engine_cards: Sequence[EngineCard] = ()
    similarities: Sequence[Similarities] = ()
    judgements: Sequence[Judgements] = ()
    mxfp4: MXFP4 | None = None  # the study's configuration; without it nothing below is read
    runs: Sequence[LoadedRun] = ()  # in the order of all tables
    diagnostics: Sequence[Diagnostics] = ()
    outliers: Sequence[Outliers] = ()
    speeds: Sequence[Speed] = ()

    @property
    def began_at(self) -> str | None:
        """When the earliest of the records was begun (ISO 8601, UTC), or None without records."""
        starts = [cell.record.environment.started_at for cell in self.cells]
        origins = [loaded.run.origin for loaded in self.runs]
        for measured in (self.diagnostics, self.outliers, self.speeds):
            origins += [one.origin for one in measured]
        return min([*starts, *(origin.started_at for origin in origins)], default=None)
