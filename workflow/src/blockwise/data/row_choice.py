"""Choosing rows by a committed list of ids, so that others take the same ones.

The same rows come from the hub, from an official file, or from a part of it that somebody holds:
which of them are played, and in which order, stands in the list alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blockwise.errors import DatasetError

NUM_NAMED = 5  # missing ids that a message lists


def choose_rows(
    rows: Sequence[Any], ids_file: Path, *, id_keys: Sequence[str], origin: str
) -> list[Any]:
    """The rows whose ids a file lists, in its order.

    Args:
        rows: official rows, unchecked.
        ids_file: one id a line; empty lines are skipped.
        id_keys: keys under which a row may have its id.
        origin: where the rows came from, in words.

    Raises:
        DatasetError: the list cannot be read, is empty, names an id twice, or one that no row has.
    """
    wanted = _read_ids(ids_file)
    by_id = {
        str(row[key]): row
        for row in rows
        if isinstance(row, Mapping)
        for key in id_keys
        if key in row
    }
    missing = [row_id for row_id in wanted if row_id not in by_id]
    if missing:
        raise DatasetError(
            f"{origin} holds {len(by_id)} rows with an id, and {len(missing)} of the {len(wanted)} "
            f"that {ids_file} lists are not among them: {', '.join(missing[:NUM_NAMED])}; name a "
            "source that holds them, or another list as row_ids"
        )
    return [by_id[row_id] for row_id in wanted]


def _read_ids(ids_file: Path) -> list[str]:
    try:
        lines = ids_file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"cannot read the list of rows {ids_file}: {error}; mend row_ids"
        ) from error
    wanted = [line.strip() for line in lines if line.strip()]
    twice = sorted({row_id for row_id in wanted if wanted.count(row_id) > 1})
    if not wanted or twice:
        problem = f"names {', '.join(twice[:NUM_NAMED])} twice" if twice else "names no row"
        raise DatasetError(f"the list of rows {ids_file} {problem}; mend it, or leave row_ids out")
    return wanted
