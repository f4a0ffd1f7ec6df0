"""English from docstrings: of the standard library, and of packages that the lock pins.

It is real text about many subjects, under free licences, on every machine that has the
environment. Source code, examples, tables and lists of arguments are left out: a paragraph stays
where it has words enough and is made of letters. A paragraph that many functions share counts
once, and one that validates is never trained on, whichever file repeats it.
"""

import ast
import functools
import hashlib
import importlib.metadata
import platform
import re
import sysconfig
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath

from blockwise.errors import ConfigError, DatasetError

MIN_WORDS = 8  # fewer are headings and types of arguments
MIN_LETTER_FRAC = 0.85  # of a paragraph's characters, with blanks; formulas have less
NO_PROSE = (">>>", "...", "|", "+-", ".. ", "$ ")
"""How paragraphs begin that are sessions, tables or directives."""
STDLIB = "python"  # stands before the names of the standard library's files

Documents = dict[str, Path]
"""Source files by a name that is the same on every machine."""


def distribution_documents(distribution: str) -> Documents:
    """The Python sources of an installed distribution.

    Raises:
        ConfigError: it is not installed.
    """
    return {
        f"{distribution}/{file}": Path(str(file.locate()))
        for file in _installed(distribution).files or []
        if file.suffix == ".py" and ".." not in PurePath(file).parts
    }


def stdlib_documents(names: Sequence[str]) -> Documents:
    """These files of the standard library."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    return {f"{STDLIB}/{name}": folder / name for name in names}


def licences(distributions: Sequence[str]) -> str:
    """Version and licence of Python and of each distribution, in words.

    Raises:
        ConfigError: one is not installed.
    """
    words = [f"Python {platform.python_version()} (PSF)"]
    for name in distributions:
        metadata = _installed(name).metadata
        classified = [
            one.rpartition(" :: ")[2]
            for one in metadata.get_all("Classifier") or []
            if one.startswith("License ::")
        ]
        fields = {
            key: (metadata.get_all(key) or [""])[0] for key in ("License-Expression", "License")
        }
        stated = fields["License-Expression"] or ", ".join(classified)
        stated = stated or fields["License"].partition("\n")[0] or "see the package"
        words.append(f"{name} {metadata['Version']} ({stated})")
    return "; ".join(words)


def prose_of(
    documents: Documents, names: Sequence[str], held_out: Callable[[], set[bytes]]
) -> Iterator[str]:
    """The new English of each file in order; a file without any gives an empty text.

    Args:
        documents: all files.
        names: those to read.
        held_out: called once, when reading begins: digests of paragraphs that are left out.

    Raises:
        DatasetError: a file cannot be read.
    """
    seen = held_out()
    for name in names:
        fresh = []
        for paragraph in _paragraphs(documents[name]):
            number = _number(paragraph)
            if number not in seen:
                seen.add(number)
                fresh.append(paragraph)
        yield "\n\n".join(fresh)


def paragraph_digests(documents: Documents, names: Sequence[str]) -> set[bytes]:
    """Digests of all paragraphs of some files, by which `prose_of` leaves them out."""
    return {_number(paragraph) for name in names for paragraph in _paragraphs(documents[name])}


def is_prose(paragraph: str) -> bool:
    """Whether a paragraph is English rather than code, a table or a list of arguments."""
    if paragraph.startswith(NO_PROSE) or len(paragraph.split()) < MIN_WORDS:
        return False
    num_letters = sum(character.isalpha() or character.isspace() for character in paragraph)
    return num_letters >= MIN_LETTER_FRAC * len(paragraph)


def _installed(distribution: str) -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(
            f"mxfp4.corpus.distributions names {distribution!r}, which is not installed here; "
            "leave it out, or use the environment that has it"
        ) from error


@functools.cache  # 20 MB of text that three passes read: the vocabulary's, and one a split
def _paragraphs(path: Path) -> tuple[str, ...]:
    """The English paragraphs of a source file."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"cannot read {path}: {error.strerror}; mend its permissions, or make the environment "
            "again"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's code
            tree = ast.parse(source)
    except (SyntaxError, ValueError):  # templates and files of another Python
        return ()
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for paragraph in re.split(r"\n\s*\n", ast.get_docstring(node) or ""):
            words = " ".join(paragraph.split())
            if is_prose(words):
                found.append(words)
    return tuple(found)


def _number(paragraph: str) -> bytes:
    return hashlib.sha256(paragraph.casefold().encode()).digest()[:16]
