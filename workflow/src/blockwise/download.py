"""Fetching one file: it is in the cache complete and verified, or it is not there at all.

A download goes to a temporary file beside its destination and takes its name only
when every announced byte has arrived and the digest is the pinned one. Dropped
connections and overloaded servers are tried again a few times; a wrong digest is not: the
file on the web is a different one, and somebody has to look. Beside each cached file stands
its digest, so that a later run can tell whether the disk still holds what was fetched.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from blockwise.artifacts import digest_file, write_bytes
from blockwise.config.base import UNPINNED
from blockwise.config.datasets import local_file
from blockwise.errors import DatasetError
from blockwise.progress import DownloadProgress

CHUNK_BYTES = 1 << 20  # large enough to be cheap, small enough for a live bar
NUM_ATTEMPTS = 4  # with the waits below: gives up after about seven seconds of trouble
FIRST_WAIT_S = 1.0  # doubles each time
TIMEOUT_S = 60.0  # without a single byte; official files are tens of megabytes
UNSAFE = re.compile(r"[^A-Za-z0-9._%+~=-]")
NAME_CHARS = 100  # of the file's own name; a file system takes 255 bytes, some of them ours
URL_CHARS = 12  # hexadecimal digits of the URL's digest in a cached name: one name per URL


class TransientError(Exception):
    """A download broke in a way that another attempt may mend."""


def fetch(url: str, cache_folder: Path, *, sha256: str = UNPINNED) -> Path:
    """Fetch a file into the cache, or find it there.

    Args:
        url: http(s):// or file://.
        cache_folder: where fetched files stay.
        sha256: the digest the file must have, or `unpinned`.

    Returns:
        The cached, verified file.

    Raises:
        DatasetError: it cannot be fetched, is cut short, or has another digest. Whatever
            the cache held before is still there.
    """
    destination = cache_folder / _cached_name(url)
    if _is_good(destination, url, sha256):
        return destination
    try:
        cache_folder.mkdir(parents=True, exist_ok=True)
        with _temporary(destination) as partial:
            _attempt(url, partial)
            found = digest_file(partial)
            if sha256 not in (UNPINNED, found):
                raise DatasetError(
                    f"{url} has sha256 {found}, but {sha256} is pinned; nothing in the cache was "
                    "changed. Check where the file comes from, then pin the digest you trust"
                )
            partial.replace(destination)
        write_bytes(_digest_path(destination), found.encode())
    except OSError as error:
        raise DatasetError(
            f"cannot store {url} as {destination}: {error.strerror or error}. Free space or mend "
            "the permissions and run the same command again"
        ) from error
    return destination


def _cached_name(url: str) -> str:
    name = UNSAFE.sub("_", Path(urlsplit(url).path).name)[-NAME_CHARS:] or "file"
    return f"{hashlib.sha256(url.encode()).hexdigest()[:URL_CHARS]}-{name}"


def _digest_path(destination: Path) -> Path:
    return destination.with_name(f"{destination.name}.sha256")


def _is_good(destination: Path, url: str, sha256: str) -> bool:
    """Whether the cached file is what was pinned or, unpinned, what was once fetched.

    An unpinned file:// is read anew: it is cheap, and it may have been edited.
    """
    if not destination.is_file():
        return False
    if sha256 != UNPINNED:
        return digest_file(destination) == sha256
    recorded = _digest_path(destination)
    if url.startswith("file://") or not recorded.is_file():
        return False
    return digest_file(destination) == recorded.read_text().strip()


@contextmanager
def _temporary(destination: Path) -> Iterator[Path]:
    """A file beside the destination that is gone afterwards unless it was renamed."""
    descriptor, name = tempfile.mkstemp(
        dir=destination.parent, prefix=f".{destination.name}.", suffix=".part"
    )
    os.close(descriptor)
    Path(name).chmod(0o644)  # a cache is shared, as the artifacts are
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _attempt(url: str, partial: Path) -> None:
    """Download with retries; the partial file starts anew each time."""
    retrying = Retrying(
        retry=retry_if_exception_type(TransientError),
        stop=stop_after_attempt(NUM_ATTEMPTS),
        wait=wait_exponential(multiplier=FIRST_WAIT_S),
        reraise=True,
    )
    copy = _copy_local if url.startswith("file://") else _download
    try:
        retrying(_write_all, copy, url, partial)
    except TransientError as error:
        raise DatasetError(
            f"cannot fetch {url} after {NUM_ATTEMPTS} attempts: {error}. Check the address and "
            "the network; or fetch the file by hand and name it with `source: {kind: path}`"
        ) from error


def _write_all(copy: Callable[[str, BinaryIO], None], url: str, partial: Path) -> None:
    with partial.open("wb") as stream:
        copy(url, stream)
        stream.flush()
        os.fsync(stream.fileno())


def _copy_local(url: str, stream: BinaryIO) -> None:
    path = local_file(url)
    assert path is not None  # the caller chose this copy for a file:// URL
    if not path.is_file():
        raise DatasetError(f"{url} names no file of this machine ({path}); mend the address")
    with path.open("rb") as source, DownloadProgress(url, path.stat().st_size) as progress:
        while chunk := source.read(CHUNK_BYTES):
            stream.write(chunk)
            progress.advance(len(chunk))


def _download(url: str, stream: BinaryIO) -> None:
    """One attempt over http(s).

    Raises:
        TransientError: the connection failed or ended early, or the server is overloaded.
        DatasetError: the server refuses the address.
    """
    try:
        with httpx.stream(
            "GET",
            url,
            follow_redirects=True,
            timeout=TIMEOUT_S,
            headers={"Accept-Encoding": "identity"},  # so that lengths and digests are the file's
        ) as response:
            _check_status(url, response)
            announced = response.headers.get("content-length")
            num_announced_bytes = int(announced) if announced else None
            with DownloadProgress(url, num_announced_bytes) as progress:
                for chunk in response.iter_raw(CHUNK_BYTES):
                    stream.write(chunk)
                    progress.advance(len(chunk))
    except httpx.HTTPError as error:
        raise TransientError(f"{type(error).__name__}: {error}") from error
    except httpx.InvalidURL as error:
        raise DatasetError(f"{url!r} is no address: {error}; mend it") from error
    if num_announced_bytes is not None and progress.num_bytes != num_announced_bytes:
        raise TransientError(
            f"it ended after {progress.num_bytes} of {num_announced_bytes} announced bytes"
        )


def _check_status(url: str, response: httpx.Response) -> None:
    """Overload and server errors may pass; a refused address does not."""
    status = response.status_code
    if status in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.REQUEST_TIMEOUT) or status >= 500:
        raise TransientError(f"HTTP {status} {response.reason_phrase}")
    if status != httpx.codes.OK:
        raise DatasetError(
            f"{url} answers HTTP {status} {response.reason_phrase}; mend the address, or fetch "
            "the file by hand and name it with `source: {kind: path}`"
        )
