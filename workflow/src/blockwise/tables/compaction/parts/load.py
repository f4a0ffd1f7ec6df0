"""From batches to cells: the only place where tables touch the cell store.

A batch lists the finished cells of one backbone and dataset as its experiments see them.
Each cell is looked up in its record file, which holds either that cell alone or the timing
block it belongs to. A cell that two experiments share is loaded once for each of them; a
cell that one experiment lists twice is refused, because a table would count it twice.
"""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from blockwise.artifacts import inside, read_json, read_model, read_sealed
from blockwise.compaction.records import Batch, CellRecord, TimingBlock
from blockwise.config.arms import SEQUENTIAL
from blockwise.errors import ArtifactError
from blockwise.serving.engine_card import EngineCard
from blockwise.tables.inputs import BatchLabels, LoadedCell, LoadedOmission


def load_batches(batch_paths: Iterable[Path], store_folder: Path) -> list[LoadedCell]:
    """Load every selected cell, in the order in which all tables list them.

    Backbones come by size, then by name; lengths and load ascend; sequential comes before the
    other arms; block sizes ascend.

    Raises:
        ArtifactError: a file is missing or damaged, a record lacks its cell, or an
            experiment lists a cell twice.
    """
    files: dict[Path, tuple[CellRecord, ...]] = {}
    cells = []
    seen = set()
    for batch_path in batch_paths:
        batch = read_model(batch_path, Batch)
        for selected in batch.selected:
            path = inside(store_folder, selected.record_path)
            if path not in files:
                files[path] = _read_records(path)
            identity = (batch.backbone, batch.dataset, selected.experiment, path, selected.cell_key)
            if identity in seen:
                raise ArtifactError(
                    f"{batch_path}: experiment {selected.experiment} lists cell "
                    f"{selected.cell_key} of {selected.record_path} more than once; a cell "
                    "counts once. Delete the batch file and rerun"
                )
            seen.add(identity)
            cells.append(
                LoadedCell(
                    **_labels_of(batch),
                    experiment=selected.experiment,
                    study=selected.study,
                    prompt=selected.prompt,
                    target_frac=selected.target_frac,
                    num_skipped_rows=batch.num_skipped_rows,
                    record=_record_of(selected.cell_key, files[path], path),
                )
            )
    return sorted(cells, key=table_order)


def load_omitted(batch_paths: Iterable[Path]) -> list[LoadedOmission]:
    """Load every cell that a batch could not play, by backbone, dataset, experiment and arm.

    Raises:
        ArtifactError: a batch is missing or damaged.
    """
    omitted = []
    for batch_path in batch_paths:
        batch = read_model(batch_path, Batch)
        omitted += [
            LoadedOmission(
                **_labels_of(batch),
                experiment=cell.experiment,
                study=cell.study,
                arm=cell.arm,
                session_id=cell.session_id,
                reason=cell.reason,
            )
            for cell in batch.omitted
        ]
    return sorted(omitted, key=_omission_order)


def damage_of(batch_path: Path, store_folder: Path) -> list[str]:
    """What of a batch is missing or damaged: the batch itself, or records that it names."""
    try:
        batch = read_model(batch_path, Batch)
    except ArtifactError as error:
        return [str(error)]
    problems = []
    for relative_path in sorted({selected.record_path for selected in batch.selected}):
        try:
            _read_records(inside(store_folder, relative_path))
        except ArtifactError as error:
            problems.append(str(error))
    return problems


def load_engine_cards(batch_paths: Iterable[Path]) -> list[EngineCard]:
    """Load the engine card of every server start, each once, by backbone and id.

    Raises:
        ArtifactError: a batch is missing or damaged, or one id names two different cards.
    """
    cards: dict[str, EngineCard] = {}
    for batch_path in batch_paths:
        for card in read_model(batch_path, Batch).engine_cards:
            if cards.setdefault(card.id, card) != card:
                raise ArtifactError(
                    f"{batch_path}: engine card {card.id} differs from the card of the same id "
                    "in another batch; delete both batch files and rerun"
                )
    return sorted(cards.values(), key=lambda card: (card.backbone, card.id))


def selections_of(cells: Iterable[LoadedCell]) -> list[list[LoadedCell]]:
    """Each cell once, as every experiment that selects it sees it."""
    found: dict[tuple[str, str, str, str], list[LoadedCell]] = {}
    for cell in cells:
        record = cell.record
        identity = (cell.backbone, cell.dataset, record.timing_block_id or "", record.cell_key)
        found.setdefault(identity, []).append(cell)
    return list(found.values())


def distinct_cells(cells: Iterable[LoadedCell]) -> list[LoadedCell]:
    """Each cell once, whatever the number of experiments that select it."""
    return [selections[0] for selections in selections_of(cells)]


TableOrder = tuple[Any, ...]
"""Every part of it is of one type in all cells."""


def table_order(cell: LoadedCell) -> TableOrder:
    """Sort key of cells in every table.

    Raises:
        ArtifactError: the cell's spec was written by another version.
    """
    record, settings = cell.record, cell.record.spec
    return (
        cell.num_parameters,
        cell.backbone,
        cell.dataset,
        cell.experiment,
        settings.tau_tokens or 0,
        settings.history_tokens or 0,
        settings.num_bystanders,
        record.arm != SEQUENTIAL,
        record.arm,
        record.block_size_tokens or 0,
        settings.tool_wait_s,
        settings.is_eager,
        settings.open_block.value,
        settings.max_background_workers or 0,
        settings.worker_priority,
        record.session_id,
        record.seed,
        record.repeat,
        record.server_start,
        cell.prompt,
        settings.max_concurrent_workers or 0,
        f"{record.timing_block_id or ''} {record.cell_key}",
    )


def _omission_order(omission: LoadedOmission) -> tuple[float, str, str, str, str, str, str]:
    return (
        omission.num_parameters,
        omission.backbone,
        omission.dataset,
        omission.experiment,
        omission.arm,
        omission.session_id,
        omission.reason,
    )


def _labels_of(batch: Batch) -> dict[str, Any]:
    """Values of `BatchLabels`."""
    return {field.name: getattr(batch, field.name) for field in fields(BatchLabels)}


def _read_records(path: Path) -> tuple[CellRecord, ...]:
    """The cells of one record file: a timing block's, or the single one of a recall cell."""
    sealed = read_json(path)
    record = sealed.get("record") if isinstance(sealed, dict) else None
    if isinstance(record, dict) and "cells" in record:
        return read_sealed(path, TimingBlock).cells
    return (read_sealed(path, CellRecord),)


def _record_of(cell_key: str, records: Sequence[CellRecord], path: Path) -> CellRecord:
    found = [record for record in records if record.cell_key == cell_key]
    if len(found) != 1:
        raise ArtifactError(
            f"{path} holds {len(found)} records of cell {cell_key}; it must hold exactly 1. "
            "Delete it and rerun"
        )
    return found[0]
