"""The cell store: finished work, kept outside declared outputs and keyed by content.

Snakemake deletes the declared outputs of a failed job; finished cells must survive that, so
they live in a folder of their own. A file is one unit (a recall cell or a whole timing block),
written atomically with its own checksum: a unit is finished or absent. A damaged file is set
aside, named, and its unit runs again; nothing else is lost.
"""

from collections.abc import Callable
from pathlib import Path

from blockwise.artifacts import inside, load_sealed, write_sealed
from blockwise.compaction.cells import Unit
from blockwise.compaction.records import CellRecord, TimingBlock
from blockwise.serving.engine_card import EngineCard


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
            return load_sealed(path, TimingBlock, self._report)
        return load_sealed(path, CellRecord, self._report)

    def save(self, unit: Unit, record: CellRecord | TimingBlock) -> None:
        """Keep a finished unit."""
        write_sealed(self.folder / self.relative_path(unit), record)

    def load_engine_card(self, card_id: str) -> EngineCard | None:
        """The card of one server start, or None where it is missing or was damaged."""
        return load_sealed(self._card_path(card_id), EngineCard, self._report)

    def save_engine_card(self, card: EngineCard) -> None:
        """Keep the card of one server start."""
        write_sealed(self._card_path(card.id), card)

    def _card_path(self, card_id: str) -> Path:
        return inside(self.folder / "engine_cards", f"{card_id}.json")
