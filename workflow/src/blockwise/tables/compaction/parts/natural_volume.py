"""What the workers of an arm did where they stop by themselves, and which gates that closes.

A volume is natural only where the model chose it: workers that a cap cut off, or that all say one
thing, show something else. And an arm is an arm only where its history blocks are its own: two
block sizes can cut a short history into the same ones.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from blockwise.compaction.records import CellRecord
from blockwise.config.arms import SEQUENTIAL
from blockwise.tables.columns import Column, ColumnKind, number, text
from blockwise.tables.compaction.parts import measures
from blockwise.tables.compaction.parts.gates import (
    MAX_LENGTH_FINISH_FRAC,
    MIN_DISTINCT_SUMMARIES_FRAC,
    Gate,
)
from blockwise.tables.inputs import LoadedCell

SAME_BLOCKS_AS = text(
    "same_blocks_as",
    "Arm of the same comparison whose compactions realise the same history blocks: sequential, or "
    "a smaller B of the same layout. The two are one arm. Empty: there is none.",
    ColumnKind.SAMPLED,
)
SHARES: tuple[Column, ...] = (
    number(
        "length_finish_frac",
        "Share of workers cut off at their cap, over all cells of the row; empty where nothing is "
        "compacted at natural volume.",
        ColumnKind.SAMPLED,
        "1",
    ),
    number(
        "distinct_summaries_frac",
        "Distinct summary texts of workers over workers, over all cells of the row; empty where "
        "nothing is compacted at natural volume.",
        ColumnKind.SAMPLED,
        "1",
    ),
)
COLUMNS: tuple[Column, ...] = (*SHARES, SAME_BLOCKS_AS)

CellPlace = tuple[str, int, int, int]
"""Session, seed, repeat and server start: what two arms that are compared both play."""
Comparison = tuple[str, str, str, str, int | None, int | None]


def column_values(records: Iterable[CellRecord], same_blocks_as: str | None) -> dict[str, Any]:
    """Values of `COLUMNS`: cells of one arm, and what `same_blocks` says of it."""
    records = [record for record in records if record.spec.volume_mode == "natural"]
    texts = [worker.text for record in records for worker in measures.workers(record)]
    num_cut, num_workers = measures.length_finishes(records)
    return {
        "length_finish_frac": num_cut / num_workers if num_workers else None,
        "distinct_summaries_frac": len(set(texts)) / len(texts) if texts else None,
        "same_blocks_as": same_blocks_as,
    }


def gates_of(values: Mapping[str, Any]) -> set[Gate]:
    """The gates that these values of `COLUMNS` close."""
    found = set()
    cut_frac, distinct_frac = values["length_finish_frac"], values["distinct_summaries_frac"]
    if cut_frac is not None and cut_frac > MAX_LENGTH_FINISH_FRAC:
        found.add(Gate.CAPPED)
    if distinct_frac is not None and distinct_frac < MIN_DISTINCT_SUMMARIES_FRAC:
        found.add(Gate.NOT_DIVERSE)
    if values["same_blocks_as"] is not None:
        found.add(Gate.SAME_BLOCKS_AS)
    return found


def same_blocks(arms: Sequence[Sequence[LoadedCell]]) -> list[str | None]:
    """Of each arm the first one before it that realises the same history blocks, in words.

    Arms are compared where they agree in backbone, dataset, experiment, prompt, tau and history
    length, and where they are of one layout or one of them is sequential.

    Args:
        arms: the cells of each row of a table, in its order; one arm may be empty.
    """
    named: list[tuple[LoadedCell, dict[CellPlace, tuple[tuple[int, ...], ...]]]] = []
    found: list[str | None] = []
    for cells in arms:
        blocks = _blocks_of(cells)
        twins = (one for one, other in named if _is_twin(cells[0], blocks, one, other))
        twin = next(twins, None) if blocks else None
        found.append(None if twin is None else _words(twin))
        if blocks:
            named.append((cells[0], blocks))
    return found


def _blocks_of(cells: Sequence[LoadedCell]) -> dict[CellPlace, tuple[tuple[int, ...], ...]]:
    """Realised history blocks of every compaction of each cell that has one."""
    return {
        (record.session_id, record.seed, record.repeat, record.server_start): tuple(
            compaction.block_tokens for compaction in record.compactions
        )
        for record in (cell.record for cell in cells)
        if record.compactions
    }


def _is_twin(
    own: LoadedCell,
    own_blocks: dict[CellPlace, tuple[tuple[int, ...], ...]],
    other: LoadedCell,
    other_blocks: dict[CellPlace, tuple[tuple[int, ...], ...]],
) -> bool:
    if _comparison(own) != _comparison(other):
        return False
    layouts = {own.record.arm, other.record.arm} - {SEQUENTIAL}
    shared = own_blocks.keys() & other_blocks.keys()
    is_one_size = own.record.block_size_tokens == other.record.block_size_tokens
    if not shared or len(layouts) != 1 or is_one_size:
        return False
    return all(own_blocks[place] == other_blocks[place] for place in shared)


def _comparison(cell: LoadedCell) -> Comparison:
    settings = cell.record.spec
    return (
        cell.backbone,
        cell.dataset,
        cell.experiment,
        cell.prompt,
        settings.tau_tokens,
        settings.history_tokens,
    )


def _words(cell: LoadedCell) -> str:
    size = cell.record.block_size_tokens
    return cell.record.arm if size is None else f"{cell.record.arm} B={size}"
