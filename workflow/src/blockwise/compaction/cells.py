"""Cells: what is run, and the key under which its record is kept.

A cell is one configured run of one session. Its key holds everything that can change the
record and nothing else: names are labels, and measured speeds, figure code or the number of
other cells never enter it. Timing cells live in timing blocks, the unit of every timing
comparison: all arms of one session and seed on one server start. A timing block's key covers its
arms, so a block that gains an arm is a new block and re-runs whole. Times vary from one start of
a server to the next, so timing cells are numbered by start and played again on each.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from blockwise.artifacts import digest
from blockwise.compaction.compactor import CompactionRule
from blockwise.config.experiments import (
    LAYOUT_PACKAGE,
    PROTOCOL_PACKAGE,
    ContentType,
    Protocol,
    Reference,
)
from blockwise.provenance import code_digest

PLAYING_MODULE = "blockwise.compaction.play"


class CellSpec(BaseModel):
    """Every ingredient of a cell's record."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_digest: str
    engine: dict[str, Any]  # identity, arguments and environment of the server
    request: dict[str, Any]  # request form and sampling defaults
    protocol: Protocol
    dataset_format: str
    session_id: str
    session_digest: str
    layout: str  # `sequential`, a parallel layout, or a reference without any compaction
    block_size_tokens: int | None  # None: sequential, or a reference
    boundary: str
    last_turns: int
    prompt: str
    block_prompts: dict[ContentType, str]  # by content type; empty: `prompt` for all
    tau_tokens: int | None  # None: no session, or a reference
    history_tokens: int | None  # None: a session
    transcript: str | None  # None: no answer enters a history
    volume_mode: str
    volume_tokens: int  # forced: total; natural: cap of each worker
    answer_tokens: int  # 1 where nothing is asked
    asks_truncated: bool  # deferred: also ask on the last tokens instead of the summaries
    max_concurrent_workers: int | None  # None: all at once
    num_bystanders: int
    bystanders: dict[str, int]  # what they do; empty: there are none
    seed: int
    repeat: int
    server_start: int  # index of the server start on which it is timed; 0: it is not timed
    code_digest: str

    @property
    def key(self) -> str:
        """Content hash of all ingredients."""
        return digest(self.model_dump(mode="json"))

    @property
    def label(self) -> str:
        """Short name for progress lines and error lists."""
        parts = [self.session_id, self.protocol.value, self.layout]
        for name, value in (
            ("B", self.block_size_tokens),
            ("tau", self.tau_tokens),
            ("history", self.history_tokens),
            ("bystanders", self.num_bystanders or None),
            ("at_once", self.max_concurrent_workers),
        ):
            parts += [] if value is None else [f"{name}={value}"]
        parts.append(f"seed={self.seed}.{self.repeat}")
        return " ".join([*parts, *([f"start={self.server_start}"] if self.server_start else [])])

    @property
    def frame(self) -> str:
        """Digest of everything but the arm: cells of one frame form one timing block."""
        arm = {"layout", "block_size_tokens", "max_concurrent_workers", "code_digest"}
        if self.volume_mode == "natural":  # the cap of a worker differs from arm to arm
            arm.add("volume_tokens")
        return digest(self.model_dump(mode="json", exclude=arm))

    @property
    def is_timing(self) -> bool:
        """Whether this cell's times count, so that it lives in a timing block."""
        if self.protocol is Protocol.SINGLE:
            return self.volume_mode == "forced"
        return self.protocol is not Protocol.DEFERRED

    @property
    def is_reference(self) -> bool:
        """Whether nothing is compacted: a floor or a ceiling of recall."""
        return self.layout in set(Reference)

    def compaction_rule(self) -> CompactionRule | None:
        """The part that the compactor needs; None for a reference."""
        if self.is_reference:
            return None
        return CompactionRule(
            layout=self.layout,
            block_size_tokens=self.block_size_tokens,
            boundary=self.boundary,
            prompt=self.prompt,
            block_prompts=self.block_prompts,
            volume_mode="forced" if self.volume_mode == "forced" else "natural",
            volume_tokens=self.volume_tokens,
            last_turns=self.last_turns,
            max_concurrent_workers=self.max_concurrent_workers,
        )


def cell_code_digest(protocol: Protocol, layout: str | None) -> str:
    """Digest of the modules on the import path of a cell; a reference has no layout."""
    modules = [PLAYING_MODULE, f"{PROTOCOL_PACKAGE}.{protocol}"]
    return code_digest(*modules, *([f"{LAYOUT_PACKAGE}.{layout}"] if layout else []))


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
