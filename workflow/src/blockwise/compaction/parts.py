"""Parts of a split batch: which units each plays, and what it leaves behind.

Units are dealt out like cards, in the order of the plan, so that every shard has its share of
every experiment and session. A unit stays whole: a timing block is one server's work. A part holds
timing blocks of one server start only.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from blockwise.compaction.cells import Unit
from blockwise.compaction.plan import BatchPlan
from blockwise.compaction.records import Record
from blockwise.compaction.store import CellStore
from blockwise.config.split import Part, Phase
from blockwise.errors import ArtifactError


class PartRecord(Record):
    """A finished part; its units are in the cell store."""

    schema_version: Literal[1] = 1
    backbone: str
    dataset: str
    part: str
    record_paths: tuple[str, ...]  # relative to the cell store


def units_of(units: Sequence[Unit], part: Part) -> tuple[Unit, ...]:
    """The units that a part plays."""
    is_timing = part.phase is Phase.TIMING
    shared = [
        unit
        for unit in units
        if unit.is_timing_block == is_timing and unit.server_start == part.server_start
    ]
    return tuple(shared[part.shard - 1 :: part.num_shards])


def plan_of(plan: BatchPlan, part: Part) -> BatchPlan:
    """What of a batch's plan one part plays."""
    units = units_of(plan.units, part)
    keys = {spec.key for unit in units for spec in unit.cells}
    selected = tuple(cell for cell in plan.selected if cell.spec.key in keys)
    return replace(plan, units=units, selected=selected)


def part_record(plan: BatchPlan, part: Part, store: CellStore) -> PartRecord:
    """The record of a part whose units are all finished; `plan` is the part's own."""
    return PartRecord(
        backbone=plan.backbone,
        dataset=plan.dataset,
        part=part.name,
        record_paths=tuple(store.relative_path(unit) for unit in plan.units),
    )


def check_parts(plan: BatchPlan, part_files: Sequence[Path], store: CellStore) -> None:
    """Refuse to join parts that are not the whole batch, or of which a unit was lost since.

    The file of a part that lost a unit is deleted: as long as it exists, the workflow takes the
    part's work for finished.

    Raises:
        ArtifactError: a unit belongs to no part or to several, or is missing or damaged.
    """
    dealt = {file: units_of(plan.units, Part.parse(file.stem)) for file in part_files}
    keys = [unit.key for units in dealt.values() for unit in units]
    if sorted(keys) != sorted(unit.key for unit in plan.units):
        raise ArtifactError(
            f"the parts {', '.join(file.stem for file in part_files)} hold {len(keys)} units of "
            f"{plan.backbone} on {plan.dataset}, and the plan has {len(plan.units)}, each once; "
            "run the workflow instead of this command alone"
        )
    problems = []
    for file, units in dealt.items():
        lost = [unit.cells[0].label for unit in units if store.load(unit) is None]
        if lost:
            file.unlink(missing_ok=True)
            problems.append(f"{len(lost)} units of {file.stem}, the first is {lost[0]}")
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise ArtifactError(
            f"finished units of {plan.backbone} on {plan.dataset} are missing or damaged:{lines}\n"
            "Run the same command again: the parts they belong to play them again"
        )
