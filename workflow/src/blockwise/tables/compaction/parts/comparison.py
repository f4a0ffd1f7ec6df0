"""Arms beside each other: what the tables of timing comparisons share.

A comparison holds the timing cells of one backbone, dataset, experiment, prompt and length; its
arms are rows of a table. Two arms are paired inside timing blocks, from valid cells only; at
forced volume their compactions must agree in number and in tokens decoded. Where arms did not
do the same work, there is no pair and the row says why (METHOD, Timing).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from blockwise.compaction.cell_spec import CellSettings
from blockwise.compaction.records import CellRecord
from blockwise.config.arms import SEQUENTIAL
from blockwise.config.backbones import Weights
from blockwise.config.choices import Study, Transcript
from blockwise.errors import ArtifactError
from blockwise.statistics import MIN_CLUSTERS
from blockwise.tables.columns import Column, ColumnKind, count, text
from blockwise.tables.compaction.parts import identity, measures, natural_volume
from blockwise.tables.compaction.parts.gates import Gate, gate_column, gate_of
from blockwise.tables.compaction.parts.load import table_order
from blockwise.tables.compaction.parts.summaries import start_of
from blockwise.tables.inputs import LoadedCell

IS_REFERENCE = "the reference arm"
NO_PAIR = "no timing block holds a valid cell of both arms"
UNEQUAL_VOLUME = "unequal compaction volume in every timing block"
FREE_RUNNING = "free-running sessions do different work"
RANDOM_WEIGHTS = "random weights: only forced equal volume is compared"
NATURAL_NOISE = "random weights: natural volume is noise, not testable at this scale"


@dataclass(frozen=True)
class Arm:
    """The timing cells of one arm of a comparison; `of` makes it."""

    cells: tuple[LoadedCell, ...]
    settings: CellSettings
    valid: Mapping[str, CellRecord]  # by timing block; cells whose times count
    same_blocks_as: str | None = None  # another arm of its comparison

    @classmethod
    def of(cls, cells: Sequence[LoadedCell], same_blocks_as: str | None = None) -> "Arm":
        """The arm that these cells form, one or more.

        Args:
            cells: the cells.
            same_blocks_as: another arm of its comparison with the same history blocks.

        Raises:
            ArtifactError: a timing block holds the arm twice, or the arm mixes settings.
        """
        settings, valid = _common_settings(cells), _by_timing_block(cells)
        return cls(tuple(cells), settings, valid, same_blocks_as)

    @property
    def name(self) -> str:
        """`sequential`, or the layout."""
        return self.cells[0].record.arm

    @property
    def block_size_tokens(self) -> int | None:
        """The configured B; None for sequential."""
        return self.cells[0].record.block_size_tokens

    @property
    def num_server_starts(self) -> int:
        """Server starts on which a time of this arm counts."""
        return len({start_of(record) for record in self.valid.values()})

    @property
    def is_noise(self) -> bool:
        """Whether the decode volume is whatever random weights happened to emit."""
        is_random = self.cells[0].weights is Weights.RANDOM
        return is_random and self.settings.volume_mode != "forced"


@dataclass(frozen=True)
class Pairs:
    """An arm and its reference in the timing blocks where the two may be compared."""

    own: Mapping[str, CellRecord]
    reference: Mapping[str, CellRecord]  # of the same timing blocks
    num_unequal_volume: int
    omitted_reason: str | None  # why there is none

    @classmethod
    def none(cls, reason: str, num_unequal_volume: int = 0) -> "Pairs":
        """No pair, and why."""
        return cls({}, {}, num_unequal_volume, reason)


NOTE = text("note", "Why the numbers of the row say nothing; empty: they count.")
LABELS: tuple[Column, ...] = (
    *identity.ARM_IDENTITY,
    identity.VOLUME_MODE,
    identity.VOLUME_TOKENS,
    count("num_timing_blocks", "Timing blocks with a valid cell of this arm.", ColumnKind.HOST),
    count(
        "num_server_starts",
        "Server starts of these timing blocks; times cluster by start, so it is their n.",
        ColumnKind.HOST,
    ),
    count("num_invalid_cells", "Cells whose times do not count, left out.", ColumnKind.HOST),
    *natural_volume.COLUMNS,
    gate_column(kind=ColumnKind.HOST),
    NOTE,
)
"""Which arm a row shows, and how much stands behind it; each table adds the length."""


def label_values(arm: Arm) -> dict[str, Any]:
    """Values of `LABELS`."""
    shares = natural_volume.column_values(arm.valid.values(), arm.same_blocks_as)
    gates = natural_volume.gates_of(shares)
    if arm.num_server_starts < MIN_CLUSTERS:
        gates.add(Gate.TOO_FEW_STARTS)
    return {
        **identity.arm_identity(arm.cells[0]),
        "volume_mode": arm.settings.volume_mode,
        "volume_tokens": arm.settings.volume_tokens,
        "num_timing_blocks": len(arm.valid),
        "num_server_starts": arm.num_server_starts,
        "num_invalid_cells": len(arm.cells) - len(arm.valid),
        **shares,
        "gate": gate_of(gates),
        "note": NATURAL_NOISE if arm.is_noise else None,
    }


def unequal_volume_column(prefix: str = "") -> Column:
    """How many timing blocks a ratio leaves out."""
    return count(
        f"{prefix}num_unequal_volume_timing_blocks",
        "Timing blocks with valid cells of both arms that the ratio leaves out, because the "
        "arms' compactions differ in number or in tokens decoded.",
        ColumnKind.HOST,
    )


def compared_arms(cells: Iterable[LoadedCell], study: Study) -> list[list[Arm]]:
    """The arms of every comparison of a study, in table order; untimed cells take no part.

    Raises:
        ArtifactError: a timing block holds an arm twice, or an arm mixes settings.
    """
    timed = sorted(
        (cell for cell in cells if cell.study is study and cell.record.timing_block_id is not None),
        key=lambda cell: (_comparison_key(cell), _arm_key(cell), table_order(cell)),
    )
    comparisons = [
        [list(members) for _, members in groupby(group, key=_arm_key)]
        for _, group in groupby(timed, key=_comparison_key)
    ]
    return [list(map(Arm.of, arms, natural_volume.same_blocks(arms))) for arms in comparisons]


def sequential_of(arms: Sequence[Arm]) -> Arm | None:
    """The sequential arm of a comparison, if it has one."""
    return next((arm for arm in arms if arm.name == SEQUENTIAL), None)


def pairs_of(own: Arm, reference: Arm | None) -> Pairs:
    """Valid cells of an arm and its reference that share a timing block and did the same work.

    Arms of natural volume differ by design; their volumes stand beside the ratio.
    """
    omitted = _why_not_comparable(own, reference)
    if reference is None or omitted is not None:
        return Pairs.none(omitted or NO_PAIR, len(_unequal(own, reference)))
    unequal = _unequal(own, reference)
    names = sorted((own.valid.keys() & reference.valid.keys()) - unequal)
    if not names:
        return Pairs.none(UNEQUAL_VOLUME if unequal else NO_PAIR, len(unequal))
    return Pairs(
        {name: own.valid[name] for name in names},
        {name: reference.valid[name] for name in names},
        len(unequal),
        None,
    )


def _comparison_key(cell: LoadedCell) -> tuple[float, str, str, str, int, int, int, float, str]:
    """Arms are compared inside one of these."""
    settings = cell.record.spec
    return (
        cell.num_parameters,
        cell.backbone,
        cell.dataset,
        cell.experiment,
        settings.tau_tokens or 0,
        settings.history_tokens or 0,
        settings.num_bystanders,
        settings.tool_wait_s,
        cell.prompt,
    )


def _arm_key(cell: LoadedCell) -> tuple[bool, str, int, bool, str, int, int, int]:
    record, spec = cell.record, cell.record.spec
    return (
        record.arm != SEQUENTIAL,
        record.arm,
        record.block_size_tokens or 0,
        spec.is_eager,
        spec.open_block.value,
        spec.max_background_workers or 0,
        spec.max_concurrent_workers or 0,
        spec.worker_priority,
    )


def _common_settings(cells: Sequence[LoadedCell]) -> CellSettings:
    settings = cells[0].record.spec.settings
    for cell in cells[1:]:
        if cell.record.spec.settings != settings:
            raise ArtifactError(
                f"experiment {cell.experiment}, arm {cell.record.arm} "
                f"(B={cell.record.block_size_tokens}) mixes cells of different settings: "
                f"{cells[0].record.cell_key} and {cell.record.cell_key}. Rerun the batch so "
                "that it selects the cells of one configuration"
            )
    return settings


def _by_timing_block(cells: Sequence[LoadedCell]) -> dict[str, CellRecord]:
    """The valid cell of an arm in each timing block."""
    found: dict[str, CellRecord] = {}
    for record in (cell.record for cell in cells if cell.record.timing_valid):
        timing_block_id = str(record.timing_block_id)
        if timing_block_id in found:
            raise ArtifactError(
                f"timing block {timing_block_id} holds 2 cells of arm {record.arm} "
                f"(B={record.block_size_tokens}); it must hold 1. Delete its record and rerun"
            )
        found[timing_block_id] = record
    return found


def _why_not_comparable(own: Arm, reference: Arm | None) -> str | None:
    """Arms are compared only where they did the same work (METHOD, Timing)."""
    both = {own.name, SEQUENTIAL if reference is None else reference.name}
    if own is reference or both == {SEQUENTIAL}:
        return IS_REFERENCE
    if own.settings.transcript is Transcript.FREE:
        return FREE_RUNNING
    return RANDOM_WEIGHTS if own.is_noise else None


def _unequal(own: Arm, reference: Arm | None) -> set[str]:
    """Timing blocks with both arms at forced volume whose compactions did different work."""
    if reference is None or own.settings.volume_mode != "forced":
        return set()
    return {
        name
        for name in own.valid.keys() & reference.valid.keys()
        if _volume(own.valid[name]) != _volume(reference.valid[name])
    }


def _volume(record: CellRecord) -> tuple[int, int]:
    """What the compactions of a cell did; arms whose volumes differ did different work."""
    return len(record.compactions), measures.compaction_output_tokens(record)
