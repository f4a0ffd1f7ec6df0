"""From batches to cells: the only place where tables touch the cell store.

A batch lists the finished cells of one backbone and dataset as its experiments see them.
Each cell is looked up in its record file, which holds either that cell alone or the timing
block it belongs to. A cell that two experiments share is loaded once for each of them; a
cell that one experiment lists twice is refused, because a table would count it twice.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from blockwise.artifacts import read_json, read_model, read_sealed
from blockwise.compaction.records import Batch, CellRecord, TimingBlock
from blockwise.config.experiments import SEQUENTIAL
from blockwise.errors import ArtifactError
from blockwise.serving.engine_card import EngineCard


@dataclass(frozen=True)
class LoadedCell:
    """One finished cell as one experiment sees it, with the labels of its batch."""

    experiment: str
    backbone: str
    dataset: str
    caption: str
    random_weights: bool
    format: str
    num_parameters: float
    num_skipped_rows: int
    record: CellRecord


def load_batches(batch_paths: Iterable[Path], store_folder: Path) -> list[LoadedCell]:
    """Load every selected cell, in the order in which all tables list them.

    Backbones come by size, then by name; sequential comes before the layouts; block sizes
    ascend.

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
            path = store_folder / selected.record_path
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
                    experiment=selected.experiment,
                    backbone=batch.backbone,
                    dataset=batch.dataset,
                    caption=batch.caption,
                    random_weights=batch.random_weights,
                    format=batch.format,
                    num_parameters=batch.num_parameters,
                    num_skipped_rows=batch.num_skipped_rows,
                    record=_record_of(selected.cell_key, files[path], path),
                )
            )
    return sorted(cells, key=table_order)


def damage_of(batch_path: Path, store_folder: Path) -> list[str]:
    """What of a batch is missing or damaged: the batch itself, or records that it names."""
    try:
        batch = read_model(batch_path, Batch)
    except ArtifactError as error:
        return [str(error)]
    problems = []
    for relative_path in sorted({selected.record_path for selected in batch.selected}):
        try:
            _read_records(store_folder / relative_path)
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


def distinct_cells(cells: Sequence[LoadedCell]) -> list[LoadedCell]:
    """Each cell once, whatever the number of experiments that select it."""
    first: dict[tuple[str, str, str, str], LoadedCell] = {}
    for cell in cells:
        record = cell.record
        identity = (cell.backbone, cell.dataset, record.timing_block_id or "", record.cell_key)
        first.setdefault(identity, cell)
    return list(first.values())


def table_order(
    cell: LoadedCell,
) -> tuple[float, str, str, str, bool, str, int, str, int, int, str]:
    """Sort key of cells in every table."""
    record = cell.record
    return (
        cell.num_parameters,
        cell.backbone,
        cell.dataset,
        cell.experiment,
        record.arm != SEQUENTIAL,
        record.arm,
        record.block_size_tokens or 0,
        record.session_id,
        record.seed,
        record.repeat,
        f"{record.timing_block_id or ''} {record.cell_key}",
    )


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
