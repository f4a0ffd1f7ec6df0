"""Reading and writing artifacts: atomic, strict JSON, versioned, content-addressed.

A file that exists is complete: writers go through a temporary file in the same folder,
fsync and rename, because a killed process or a deleted `.snakemake/` must never make a
partial file look finished. JSON is strict (no NaN), and a reader refuses a schema
version it does not know instead of guessing.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError

from blockwise.errors import ArtifactError

DIGEST_CHARS = 32  # 128 bits of sha256: no collision is expected below 10^18 artifacts

ModelT = TypeVar("ModelT", bound=BaseModel)


def canonical_json(value: Any) -> str:
    """Serialise to the one text form that digests are taken of (sorted keys, no spaces)."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(value: Any) -> str:
    """Digest of a JSON-like value, independent of key order; half a surrogate is taken as it is."""
    text = canonical_json(value).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()[:DIGEST_CHARS]


def digest_file(path: Path) -> str:
    """Full sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_tree(folder: Path) -> str:
    """Digest of all files below a folder: relative names and contents."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest({str(path.relative_to(folder)): digest_file(path) for path in files})


def file_states(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and time stamp of each file: weights are too large to be read at every start."""
    states = ((path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file())
    return [(str(path), state.st_size, state.st_mtime_ns) for path, state in states]


def inside(folder: Path, name: str) -> Path:
    """A file below a folder, whose name was read from an artifact.

    Raises:
        ArtifactError: the name leads out of the folder; it was not written by a run.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or not name.isprintable():
        raise ArtifactError(
            f"{name!r} is no name of a file below {folder}, and an artifact gives it as one; "
            "nothing there was touched. Delete that artifact and rerun"
        )
    return folder / name


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A stream whose bytes become the file when all are written, whatever dies; or never.

    Raises:
        ArtifactError: it cannot be written; the file is what it was.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise ArtifactError(
            f"cannot write {path}: {error.strerror}. Nothing already finished is lost; "
            "free space or mend the permissions and run the same command again"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)  # after the rename there is nothing to remove


@contextmanager
def replacing_folder(
    folder: Path, failures: tuple[type[Exception], ...] = (OSError,)
) -> Iterator[Path]:
    """An empty folder that takes the other's place when all is written into it, or never.

    It always has the same name, so the next job removes what a killed one left. One job at a time
    writes a folder: the workflow or a lock sees to it.

    Args:
        folder: the place.
        failures: what a writer raises where the disk is full or the folder locked.

    Raises:
        ArtifactError: it cannot be written; the folder is what it was.
    """
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    try:
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir(parents=True)
        yield unfinished
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.replace(folder)
    except failures as error:
        raise ArtifactError(
            f"cannot write {folder}: {error}. Nothing already finished is lost; free space or mend "
            "the permissions and run the same command again"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically: it is either the old one or complete."""
    with replacing(path) as stream:
        stream.write(data)


def write_json(path: Path, value: Any) -> None:
    """Write strict, indented JSON atomically."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def write_model(path: Path, model: BaseModel) -> None:
    """Write a pydantic model as strict JSON atomically."""
    write_json(path, model.model_dump(mode="json"))


def read_json(path: Path) -> Any:
    """Read strict JSON; a missing or damaged file is an `ArtifactError` that names it."""
    try:
        return json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not valid JSON ({error}); delete it and rerun") from error


def read_model(path: Path, model: type[ModelT]) -> ModelT:
    """Read and validate an artifact; unknown schema versions and keys are refused.

    Raises:
        ArtifactError: the file is missing, damaged, or does not match `model`.
    """
    return _validated(path, read_json(path), model)


def write_sealed(path: Path, record: BaseModel) -> None:
    """Write a record together with the digest of its content."""
    content = record.model_dump(mode="json")
    write_json(path, {"digest": digest(content), "record": content})


def read_sealed(path: Path, model: type[ModelT]) -> ModelT:
    """Read a sealed record.

    Raises:
        ArtifactError: the file is missing, damaged, or of an unknown schema version.
    """
    sealed = read_json(path)
    is_sealed = isinstance(sealed, dict) and set(sealed) == {"digest", "record"}
    if not is_sealed or digest(sealed["record"]) != sealed["digest"]:
        raise ArtifactError(f"{path} is damaged: its content does not match its digest")
    return _validated(path, sealed["record"], model)


def load_sealed(path: Path, model: type[ModelT], report: Callable[[str], None]) -> ModelT | None:
    """A sealed record, or None where it is missing or damaged.

    A damaged file is set aside and reported in one line: only what needs it runs again.
    """
    if not path.exists():
        return None
    try:
        return read_sealed(path, model)
    except ArtifactError as error:
        aside = path.with_suffix(".damaged")
        path.replace(aside)
        report(f"{error}; kept as {aside.name}, what needs it runs again")
        return None


def _validated(path: Path, content: Any, model: type[ModelT]) -> ModelT:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(
            f"{path} does not match {model.__name__}: {where}: {first['msg']}. "
            "It was written by another version or damaged; delete it and rerun"
        ) from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")
