"""What tables are made from: finished cells, and what was measured on them afterwards.

Every table module offers `COLUMNS` and `build(inputs)`; each takes what it needs. A part that a
run does not make is empty, and the tables that show it say so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from blockwise.compaction.judgements import Judgements
from blockwise.compaction.similarity import Similarities
from blockwise.serving.engine_card import EngineCard
from blockwise.tables.load import LoadedCell, LoadedOmission


@dataclass(frozen=True)
class TableInputs:
    """Everything that any table reads."""

    cells: Sequence[LoadedCell] = ()  # in the order of all tables
    omitted: Sequence[LoadedOmission] = ()
    engine_cards: Sequence[EngineCard] = ()
    similarities: Sequence[Similarities] = ()
    judgements: Sequence[Judgements] = ()
