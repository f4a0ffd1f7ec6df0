"""Where the text of a corpus comes from: the standard library, files of this machine, or the hub.

All three deliver the same thing: pieces of text to train on and to validate, in an order that
depends on nothing but the source. Files are split whole, by their names, so that no text is on
both sides; a dataset of the hub comes with its own split. Nothing is read before it is asked for.
"""

import hashlib
import os
import platform
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

from blockwise.config.base import UNPINNED
from blockwise.config.corpora import (
    Corpus,
    DocstringCorpus,
    HubCorpus,
    PathCorpus,
    StdlibCorpus,
    StdlibDocsCorpus,
)
from blockwise.errors import ConfigError, DatasetError
from blockwise.mxfp4.docstrings import (
    distribution_documents,
    licences,
    paragraph_digests,
    prose_of,
    stdlib_documents,
)
from blockwise.mxfp4.documentation import document, documented_modules, topic_names

VALIDATION_FRAC = 0.02  # of the files: enough to evaluate on, little lost for training
DOCS_VALIDATION_FRAC = 0.1  # of a text that is small, and that nothing is trained on for long
PIECE_CHARS = 1 << 20  # a longer file is tokenized in pieces that end with a line
NO_STDLIB = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
OF_THE_MACHINE = ("_sysconfigdata", "config-", "sitecustomize")
"""What a build or an administrator puts beside the library's own sources."""


class Piece(NamedTuple):
    """Text that is tokenized as a whole: a document, or a part of a long one."""

    text: str
    ends_document: bool


class Text(NamedTuple):
    """The text of one split."""

    pieces: Iterator[Piece]
    total: int  # what there is to do, in `unit`; tokens beyond it are left out
    unit: Literal["documents", "tokens"]


class TextSource(NamedTuple):
    """A corpus before it is tokenized."""

    name: str  # in words
    train: Text
    validation: Text


def open_source(corpus: Corpus, cache: Path) -> TextSource:
    """Find the text of a corpus; reading begins with the first piece.

    Args:
        corpus: its configuration.
        cache: where `datasets` keeps its files.

    Raises:
        DatasetError: there is no text, or too few files; reading raises it for what is
            unreadable, not UTF-8 or not there.
        ConfigError: a revision is unpinned.
    """
    match corpus:
        case StdlibCorpus():
            folder = Path(sysconfig.get_paths()["stdlib"])
            name = f"standard library of {_python()} (another version is another text)"
            return _files(name, folder, _stdlib_files(folder))
        case DocstringCorpus():
            return _docstrings(corpus)
        case StdlibDocsCorpus():
            return _stdlib_docs(Path(sysconfig.get_paths()["stdlib"]))
        case PathCorpus():
            folder = Path(corpus.folder)
            names = _matching_files(folder, corpus.pattern)
            return _files(f"{corpus.folder}, files {corpus.pattern}", folder, names)
        case HubCorpus():
            return _hub(corpus, cache)


def unpinned(key: str, hub_id: str) -> str:
    """What to say of a revision that nobody has verified."""
    return (
        f"{key}.revision of {hub_id} is {UNPINNED!r}: nobody has verified which commit is meant; "
        "run `make pin` where the hub can be reached"
    )


def _python() -> str:
    return f"{platform.python_implementation()} {platform.python_version()}"


def split_by_file(
    names: Sequence[str], validation_frac: float = VALIDATION_FRAC
) -> tuple[list[str], list[str]]:
    """Train and validation files of at least two, each sorted; both get at least one.

    A file's place follows from its own name, so that another file more or less does not move it.
    """
    ranked = sorted(names, key=_place)
    num_chosen = sum(_place(name) < validation_frac for name in names)
    num_validation = min(max(num_chosen, 1), len(names) - 1)
    return sorted(ranked[num_validation:]), sorted(ranked[:num_validation])


def _place(name: str) -> float:
    """A number in [0, 1] that only the name decides."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8]) / 2**64


def _files(source_name: str, folder: Path, names: Sequence[str]) -> TextSource:
    if len(names) < 2:
        raise DatasetError(
            f"{source_name}: {len(names)} of the needed 2 files are in {folder}, one to train on "
            "and one to validate; mend folder or pattern, or split the file"
        )
    train, validation = split_by_file(names)
    return TextSource(
        f"{source_name}: {len(train)} files to train on, {len(validation)} to validate",
        Text(_file_pieces(folder, train), len(train), "documents"),
        Text(_file_pieces(folder, validation), len(validation), "documents"),
    )


def _docstrings(corpus: DocstringCorpus) -> TextSource:
    stdlib = _stdlib_files(Path(sysconfig.get_paths()["stdlib"]))
    documents = stdlib_documents(stdlib)
    for distribution in corpus.distributions:
        documents |= distribution_documents(distribution)
    train, validation = split_by_file(sorted(documents), corpus.validation_frac)
    to_validate = prose_of(documents, validation, set)
    to_train = prose_of(documents, train, lambda: paragraph_digests(documents, validation))
    return TextSource(
        f"English of docstrings in {licences(corpus.distributions)}: {len(train)} files to train "
        f"on, {len(validation)} to validate (other versions are another text)",
        Text((Piece(text, ends_document=bool(text)) for text in to_train), len(train), "documents"),
        Text(
            (Piece(text, ends_document=bool(text)) for text in to_validate),
            len(validation),
            "documents",
        ),
    )


def _stdlib_docs(folder: Path) -> TextSource:
    modules = documented_modules(folder, _stdlib_files(folder))
    train, validation = split_by_file([*modules, *topic_names()], DOCS_VALIDATION_FRAC)
    return TextSource(
        f"documentation of the standard library of {_python()} (another version is another text): "
        f"{len(train)} documents to train on, {len(validation)} to validate",
        Text((Piece(document(folder, name), True) for name in train), len(train), "documents"),
        Text(
            (Piece(document(folder, name), True) for name in validation),
            len(validation),
            "documents",
        ),
    )


def _stdlib_files(folder: Path) -> list[str]:
    """The library's own sources without its tests: the same wherever this Python is installed."""
    names = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in NO_STDLIB]  # where walk goes on
        paths = [Path(parent, name) for name in files if name.endswith(".py")]
        names += [path.relative_to(folder).as_posix() for path in paths]
    return [name for name in names if not name.startswith(OF_THE_MACHINE)]


def _matching_files(folder: Path, pattern: str) -> list[str]:
    if not folder.is_dir():
        raise DatasetError(f"{folder} is no folder; mend mxfp4.corpus.folder")
    try:
        paths = [path for path in folder.glob(pattern) if path.is_file()]
    except (ValueError, NotImplementedError) as error:  # an empty or an absolute pattern
        raise DatasetError(
            f"mxfp4.corpus.pattern {pattern!r} is refused: {error}; name files relative to "
            f"{folder}, such as **/*.txt"
        ) from error
    return [path.relative_to(folder).as_posix() for path in paths]


def _file_pieces(folder: Path, names: Iterable[str]) -> Iterator[Piece]:
    for name in names:
        path = folder / name
        try:
            with path.open(encoding="utf-8", newline="") as stream:
                piece, following = _read_piece(stream), _read_piece(stream)
                while following:
                    yield Piece(piece, ends_document=False)
                    piece, following = following, _read_piece(stream)
                yield Piece(piece, ends_document=True)
        except OSError as error:
            raise DatasetError(
                f"cannot read {path}: {error.strerror}; mend its permissions, or leave it out"
            ) from error
        except UnicodeDecodeError as error:
            raise DatasetError(
                f"{path} is not UTF-8 text ({error.reason}); convert it, or leave it out"
            ) from error


def _read_piece(stream: TextIO) -> str:
    text = stream.read(PIECE_CHARS)
    return text + stream.readline(PIECE_CHARS)


def _hub(corpus: HubCorpus, cache: Path) -> TextSource:
    import datasets  # type: ignore[import-untyped]  # noqa: PLC0415  # seconds, and optional

    is_folder = Path(corpus.id).is_dir()
    if corpus.revision == UNPINNED and not is_folder:
        raise ConfigError(unpinned("mxfp4.corpus", corpus.id))
    try:
        splits = datasets.load_dataset(
            corpus.id,
            corpus.subset,
            data_files={"train": corpus.train_files, "validation": corpus.validation_files},
            revision=None if is_folder else corpus.revision,
            streaming=True,
            cache_dir=str(cache),
        )
    except Exception as error:  # the library raises dozens of unrelated types
        raise _hub_failure(corpus, error) from error
    max_tokens, max_documents = corpus.max_train_tokens, corpus.max_validation_documents
    validation = islice(_hub_pieces(corpus, splits["validation"]), max_documents)
    subset = f"/{corpus.subset}" if corpus.subset else ""
    commit = "" if is_folder else f" at {corpus.revision}"
    return TextSource(
        f"{corpus.id}{subset}{commit}: at most {max_tokens} tokens of "
        f"{', '.join(corpus.train_files)} to train on, {max_documents} documents of "
        f"{', '.join(corpus.validation_files)} to validate",
        Text(_hub_pieces(corpus, splits["train"]), max_tokens, "tokens"),
        Text(validation, max_documents, "documents"),
    )


def _hub_pieces(corpus: HubCorpus, rows: Iterable[dict[str, Any]]) -> Iterator[Piece]:
    """Documents as they arrive; the library itself tries a broken connection again."""
    try:
        for number, row in enumerate(rows):
            text = row.get(corpus.text_column)
            if not isinstance(text, str):
                raise DatasetError(
                    f"{corpus.id}: row {number} has no text in column {corpus.text_column!r} "
                    f"(columns: {', '.join(row)}); mend mxfp4.corpus.text_column, or name files "
                    "that have it"
                )
            yield Piece(text, ends_document=True)
    except DatasetError:
        raise
    except Exception as error:  # the library raises dozens of unrelated types
        raise _hub_failure(corpus, error) from error


def _hub_failure(corpus: HubCorpus, error: Exception) -> DatasetError:
    files = ", ".join([*corpus.train_files, *corpus.validation_files])
    return DatasetError(
        f"cannot load {corpus.id} at {corpus.revision} from the hub: {type(error).__name__}: "
        f"{error}. Check id, subset, revision, the network and the files ({files}); or fetch text "
        "files by hand and name them with `corpus: {kind: path}`"
    )
