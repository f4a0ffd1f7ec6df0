"""The compactor's contract as its tests state it: a table for workflow/docs/compactor.md.

    python -m blockwise.dev.contract_table           writes it into the page
    python -m blockwise.dev.contract_table --check   fails if the page has drifted

A test says in its name which lines of the contract it holds (`test_b1_...`), or in the keys of the
cases that it is given ("A1 cut off by its budget").
"""

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

from blockwise.artifacts import write_bytes
from blockwise.errors import ArtifactError, run_command

WORKFLOW = Path(__file__).parents[3]
PAGE = WORKFLOW / "docs" / "compactor.md"
TESTS = WORKFLOW / "tests"
FILES = (
    "compaction/test_contract*.py",
    "compaction/test_chat.py",
    "compaction/test_compact_command.py",
    "models/test_round_template.py",
)
BEGIN, END = "<!-- contract: begin -->", "<!-- contract: end -->"
NAME = re.compile(r"test_((?:[a-e]\d_|f_)+)(.+)")
CASE = re.compile(r"([A-F]\d) (.+)")
ON_A_REAL_SERVER = "test_contract_real.py"


def page_text(text: str) -> str:
    """A page with the table of now between its marks.

    Raises:
        ArtifactError: the page has no marks.
    """
    if BEGIN not in text or END not in text:
        raise ArtifactError(f"{PAGE} has no {BEGIN} ... {END}; put them where the table stands")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def table() -> str:
    """A row a line of the contract."""
    held: dict[str, list[str]] = {}
    for pattern in FILES:
        for file in sorted(TESTS.glob(pattern)):
            for line, words in _statements(file):
                where = " (vLLM)" if file.name == ON_A_REAL_SERVER else ""
                held.setdefault(line, []).append(f"{words}{where}")
    rows = [f"| {line} | {'; '.join(dict.fromkeys(held[line]))} |" for line in sorted(held)]
    return "\n".join(["| line | what its tests say |", "|---|---|", *rows])


def _statements(file: Path) -> Iterator[tuple[str, str]]:
    """Lines of the contract and what is said of them, in the order of the file."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and (found := NAME.fullmatch(node.name)):
            for line in found[1].rstrip("_").split("_"):
                yield line.upper(), found[2].replace("_", " ")
        if isinstance(node, ast.Dict):
            for key in node.keys:
                value = key.value if isinstance(key, ast.Constant) else None
                if isinstance(value, str) and (case := CASE.fullmatch(value)):
                    yield case[1], case[2]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m blockwise.dev.contract_table", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--check", action="store_true", help="write nothing, fail if it differs")
    arguments = parser.parse_args()
    now = PAGE.read_text(encoding="utf-8")
    wanted = page_text(now)
    if arguments.check and now != wanted:
        raise ArtifactError(f"{PAGE.name} has drifted: run python -m blockwise.dev.contract_table")
    if now != wanted:
        write_bytes(PAGE, wanted.encode())


if __name__ == "__main__":
    run_command(main)
