"""Official rows, checked one at a time: what the readers of all formats share.

A published data set is edited by hand and re-exported by others, so a reader must expect
rows that break the schema. Each reader describes one row as a pydantic model and turns it
into documents; this module walks the rows, and a row that does not fit is reported
with its file, its number, its id and the key that is wrong. `refuse` ends the run there;
`skip` leaves the row out and hands the report on, so that the tables can count it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from blockwise.config.datasets import MalformedRows
from blockwise.data.documents import Document
from blockwise.errors import DatasetError

SHOWN_VALUE_CHARS = 60  # enough to recognise a value, short enough for one line

RowT = TypeVar("RowT", bound=BaseModel)


class OfficialRow(BaseModel):
    """Base of the official schemas: surplus keys are allowed, values are never coerced."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)


class MalformedRowError(Exception):
    """A row that does not match its schema; the text names the key and the value."""


def parse_row(row: Any, model: type[RowT]) -> RowT:
    """Check one row against its schema.

    Raises:
        MalformedRowError: with the first key that is wrong.
    """
    if not isinstance(row, Mapping):
        raise MalformedRowError(f"is a {type(row).__name__}, not an object with keys")
    try:
        return model.model_validate(dict(row))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "row"
        shown = "" if first["type"] == "missing" else f", got {_shown(first['input'])}"
        raise MalformedRowError(f"key {key}: {first['msg']}{shown}") from error


def read_documents(
    rows: Iterable[Any],
    read_row: Callable[[Any], list[Document]],
    *,
    id_keys: Sequence[str],
    origin: str,
    malformed: MalformedRows,
) -> tuple[list[Document], list[str]]:
    """Turn rows into documents; refuse or skip the malformed ones.

    Args:
        rows: rows in file order.
        read_row: one row to its documents; raises `MalformedRowError`.
        id_keys: the keys that name a row in reports, the official one first.
        origin: where the rows came from, in words.
        malformed: what a malformed row does to the run.

    Returns:
        The documents, and one report for each skipped row.

    Raises:
        DatasetError: a row is malformed (and not to be skipped), or nothing is left.
    """
    documents: list[Document] = []
    skipped: list[str] = []
    known_ids: set[str] = set()
    num_rows = 0
    for number, row in enumerate(rows):
        num_rows += 1
        try:
            found = read_row(row)
            _refuse_duplicates(found, known_ids, id_keys[0])
            _refuse_broken_text(found)
        except MalformedRowError as error:
            report = _encodable(f"{origin}: row {number}{_row_name(row, id_keys)}: {error}")
            if malformed is MalformedRows.REFUSE:
                raise DatasetError(
                    f"malformed row: {report}. Mend the file, or set `malformed_rows: skip` to "
                    "leave such rows out and have them counted"
                ) from error
            skipped.append(report)
            continue
        documents += found
        known_ids.update(document.id for document in found)
    if not documents:
        reason = f"all {num_rows} rows are malformed; first: {skipped[0]}" if skipped else "no rows"
        raise DatasetError(f"{origin} is empty: {reason}. Name a source that has at least one row")
    return documents, skipped


def _refuse_duplicates(found: list[Document], known_ids: set[str], id_key: str) -> None:
    for document in found:
        if document.id in known_ids:
            raise MalformedRowError(f"key {id_key}: document {document.id!r} appeared before")


def _refuse_broken_text(found: list[Document]) -> None:
    """JSON can spell half a surrogate pair, which no encoding can write: it is no text."""
    for document in found:
        texts = [document.id, document.text]
        for question in document.questions:
            texts += [question.id, question.text, question.answer]
        for text in texts:
            try:
                text.encode()
            except UnicodeEncodeError as error:
                around = text[max(0, error.start - SHOWN_VALUE_CHARS // 3) :]
                raise MalformedRowError(
                    f"a text holds half a surrogate pair: {_shown(around)}"
                ) from error


def _encodable(text: str) -> str:
    """A report that can be written even where it quotes a broken text."""
    return text.encode(errors="backslashreplace").decode()


def _row_name(row: Any, id_keys: Sequence[str]) -> str:
    """The row's own name, where it has one: ` (_id 5a8b...)`."""
    if not isinstance(row, Mapping):
        return ""
    return next((f" ({key} {_name(row[key])})" for key in id_keys if key in row), "")


def _name(value: Any) -> str:
    if not isinstance(value, str):
        return _shown(value)
    name = value if value.isprintable() else repr(value)[1:-1]
    return name if len(name) <= SHOWN_VALUE_CHARS else name[: SHOWN_VALUE_CHARS - 3] + "..."


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} nested very deep"
    return text if len(text) <= SHOWN_VALUE_CHARS else text[: SHOWN_VALUE_CHARS - 3] + "..."
