"""What tables are made from: finished cells and training runs, and what was measured beside them.

Every table module offers `COLUMNS` and `build(inputs)`; each takes what it needs. A part that a
run does not make is empty, and the tables that show it say so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from blockwise.compaction.judgements import Judgements
from blockwise.compaction.records import CellRecord
from blockwise.compaction.similarity import Similarities
from blockwise.config.backbones import Weights
from blockwise.config.choices import Study
from blockwise.config.mxfp4 import MXFP4
from blockwise.mxfp4.records import DescentOutput, Diagnostics, Outliers, Speed, TrainingRun
from blockwise.serving.engine_card import EngineCard


@dataclass(frozen=True)
class BatchLabels:
    """What a batch says of all its cells; the names are those of `Batch`."""

    backbone: str
    dataset: str
    caption: str
    weights: Weights
    format: str
    num_parameters: float


@dataclass(frozen=True)
class LoadedCell(BatchLabels):
    """One finished cell as one experiment sees it, with the labels of its batch."""

    experiment: str
    study: Study
    prompt: str  # name of the compaction prompt, or `by content type`
    target_frac: float | None  # output over input that the prompt asks for, where it says
    num_skipped_rows: int
    record: CellRecord


@dataclass(frozen=True)
class LoadedOmission(BatchLabels):
    """A cell that an experiment asks for and that cannot be played, with its batch's labels."""

    experiment: str
    study: Study
    arm: str
    session_id: str
    reason: str


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
    layer_errors: Sequence[Diagnostics] = ()  # on a published model, by part
    descents: Sequence[DescentOutput] = ()
    outliers: Sequence[Outliers] = ()
    speeds: Sequence[Speed] = ()

    @property
    def began_at(self) -> str | None:
        """When the earliest of the records was begun (ISO 8601, UTC), or None without records."""
        starts = [cell.record.environment.started_at for cell in self.cells]
        origins = [loaded.run.origin for loaded in self.runs]
        origins += [one.start.origin for one in self.descents]
        for measured in (self.diagnostics, self.layer_errors, self.outliers, self.speeds):
            origins += [one.origin for one in measured]
        return min([*starts, *(origin.started_at for origin in origins)], default=None)
