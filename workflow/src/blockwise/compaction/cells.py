"""Units: what is run and stored together, and the key under which its record is kept.

A cell is one configured run of one session. Its key holds everything that can change the
record and nothing else: names are labels, and measured speeds, figure code or the number of
other cells never enter it. Timing cells live in timing blocks, the unit of every timing
comparison: all arms of one session and seed on one server start. A timing block's key covers its
arms, so a block that gains an arm is a new block and re-runs whole. Times vary from one start of
a server to the next, so timing cells are numbered by start and played again on each.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from blockwise.artifacts import digest
from blockwise.compaction.cell_spec import CellSpec
from blockwise.config.arms import LAYOUT_PACKAGE, STRATEGY_PACKAGE
from blockwise.config.choices import PROTOCOL_PACKAGE, Protocol
from blockwise.config.datasets import format_module
from blockwise.provenance import code_digest

PLAYING_MODULE = "blockwise.compaction.play"


def cell_code_digest(
    protocol: Protocol, layout: str | None, dataset_format: str, strategy: str | None = None
) -> str:
    """Digest of the modules on the import path of a cell; a reference has no layout."""
    modules = [PLAYING_MODULE, f"{PROTOCOL_PACKAGE}.{protocol}", format_module(dataset_format)]
    modules += [f"{LAYOUT_PACKAGE}.{layout}"] if layout else []
    return code_digest(*modules, *([f"{STRATEGY_PACKAGE}.{strategy}"] if strategy else []))


@dataclass(frozen=True)
class Unit:
    """What is run and stored together: one recall cell, or one timing block."""

    cells: tuple[CellSpec, ...]

    @property
    def is_timing_block(self) -> bool:
        """Whether the unit is a timing block."""
        return self.cells[0].is_timing

    @property
    def server_start(self) -> int:
        """Index of the server start that its times are of; 0 for a recall cell."""
        return self.cells[0].server_start

    @property
    def key(self) -> str:
        """A recall cell's own key; a timing block's digest of its arms' keys."""
        if not self.is_timing_block:
            return self.cells[0].key
        return digest(sorted(cell.key for cell in self.cells))


def group_units(cells: Iterable[CellSpec]) -> list[Unit]:
    """Group cells into units, each cell once, in the order of first appearance."""
    unique = {cell.key: cell for cell in cells}
    frames: dict[str, list[CellSpec]] = {}
    for key, cell in unique.items():
        frames.setdefault(cell.frame if cell.is_timing else key, []).append(cell)
    return [Unit(tuple(members)) for members in frames.values()]
