"""The cell store: finished work, kept outside declared outputs and keyed by content.

Snakemake deletes the declared outputs of a failed job; finished cells must survive that, so
they live in a folder of their own. A file is one unit (a recall cell or a whole timing block),
written atomically with its own checksum: a unit is finished or absent. A damaged file is set
aside, named, and its unit runs again; nothing else is lost.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from blockwise.artifacts import read_sealed, write_sealed
from blockwise.compaction.cells import Unit
from blockwise.compaction.records import CellRecord, TimingBlock
from blockwise.errors import ArtifactError
from blockwise.serving.engine_card import EngineCard

ModelT = TypeVar("ModelT", bound=BaseModel)


class CellStore:
    """Finished units and engine cards below one folder.

    Args:
        folder: the store; created on the first write.
        report: told, in one line, about every damaged file that is set aside.
    """

    def __init__(self, folder: Path, report: Callable[[str], None]) -> None:
        self.folder = folder
        self._report = report

    def relative_path(self, unit: Unit) -> str:
        """Where a unit lies, relative to the store."""
        kind = "timing_blocks" if unit.is_timing_block else "cells"
        return f"{kind}/{unit.key[:2]}/{unit.key}.json"

    def load(self, unit: Unit) -> CellRecord | TimingBlock | None:
        """The finished unit, or None where it is missing or was damaged."""
        path = self.folder / self.relative_path(unit)
        if unit.is_timing_block:
            return self._load(path, TimingBlock)
        return self._load(path, CellRecord)

    def save(self, unit: Unit, record: CellRecord | TimingBlock) -> None:
        """Keep a finished unit."""
        write_sealed(self.folder / self.relative_path(unit), record)

    def load_engine_card(self, card_id: str) -> EngineCard | None:
        """The card of one server start, or None where it is missing or was damaged."""
        return self._load(self._card_path(card_id), EngineCard)

    def save_engine_card(self, card: EngineCard) -> None:
        """Keep the card of one server start."""
        write_sealed(self._card_path(card.id), card)

    def _card_path(self, card_id: str) -> Path:
        return self.folder / "engine_cards" / f"{card_id}.json"

    def _load(self, path: Path, model: type[ModelT]) -> ModelT | None:
        if not path.exists():
            return None
        try:
            return read_sealed(path, model)
        except ArtifactError as error:
            aside = path.with_suffix(".damaged")
            path.replace(aside)
            self._report(f"{error}; kept as {aside.name}, what needs it runs again")
            return None
