"""The map of the code: every module with the first sentence that it says of itself.

python -m blockwise.dev.code_map           writes workflow/docs/map.md
python -m blockwise.dev.code_map --check   fails if the committed map has drifted
"""

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

from blockwise.artifacts import write_bytes
from blockwise.errors import ArtifactError, run_command

PACKAGE = Path(__file__).parents[1]
MAP_FILE = PACKAGE.parents[1] / "docs" / "map.md"
HEAD = """# The map of the code

Written by `python -m blockwise.dev.code_map` from the modules themselves; `make check` fails where
it has drifted. How data flows: `data` makes documents, `compaction/sessions` sessions and
`compaction/plan` cells of them, and `compaction/play_batch` plays these on a server of `serving`,
which serves a model of `models`; `mxfp4/train_arm` trains. What is finished lies in the store
(`compaction/store`, and records of trainings beside it). `tables` reads the store, `claims` and
`figures` read tables, `report` shows both. `config` says what there is to do, `run` serves the
workflow, and the rules in `workflow/rules` chain it all.
"""
SENTENCE_END = re.compile(r"(?<=[.!?])\s|\n\n")


def map_text() -> str:
    """The map as it must stand in the file."""
    packages = sorted(path.parent for path in PACKAGE.rglob("__init__.py"))
    return "\n".join([HEAD, *(line for package in packages for line in _section(package))])


def _section(package: Path) -> Iterator[str]:
    name = ".".join(["blockwise", *package.relative_to(PACKAGE).parts])
    modules = sorted(path for path in package.glob("*.py") if path.name != "__init__.py")
    yield from (f"## {name}", "", first_sentence(package / "__init__.py"), "")
    if modules:
        yield from ("| module | |", "|---|---|")
        yield from (f"| `{module.stem}` | {_cell(first_sentence(module))} |" for module in modules)
        yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def first_sentence(module: Path) -> str:
    """The first sentence of a module's docstring, on one line.

    Raises:
        ArtifactError: it has none.
    """
    text = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))
    if not text:
        raise ArtifactError(f"{module.relative_to(PACKAGE)} has no docstring; say what it is for")
    return " ".join(SENTENCE_END.split(text)[0].split())


def main() -> None:
    """Write the map, or check that the committed one is current."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail on drift, write nothing")
    if not parser.parse_args().check:
        write_bytes(MAP_FILE, map_text().encode())
    elif not MAP_FILE.is_file() or MAP_FILE.read_text(encoding="utf-8") != map_text():
        raise ArtifactError(
            f"{MAP_FILE.name} differs from the modules; run `python -m blockwise.dev.code_map` and "
            "commit the file"
        )


if __name__ == "__main__":
    run_command(main)
