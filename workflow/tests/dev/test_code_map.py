"""The map of the code names every module, and none that is not there."""

import re
from pathlib import Path

import pytest

from blockwise.dev import code_map
from blockwise.dev.code_map import MAP_FILE, first_sentence, map_text
from blockwise.errors import ArtifactError

SECTION = re.compile(r"^## blockwise(\S*)$(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| `(\w+)` \| (.+) \|$", re.MULTILINE)


def test_the_map_names_every_module_and_no_other():
    package = Path(code_map.__file__).parents[1]
    named = {
        package.joinpath(*section.split("."), f"{module}.py")
        for section, rows in SECTION.findall(MAP_FILE.read_text(encoding="utf-8"))
        for module, _ in ROW.findall(rows)
    }
    assert named == {path for path in package.rglob("*.py") if path.name != "__init__.py"}
    assert MAP_FILE.read_text(encoding="utf-8") == map_text()


def test_a_module_that_says_nothing_of_itself_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(code_map, "PACKAGE", tmp_path)
    silent = tmp_path / "silent.py"
    silent.write_text("x = 1\n")
    with pytest.raises(ArtifactError, match=r"silent\.py has no docstring"):
        first_sentence(silent)
    silent.write_text('"""Says what it\nis for. And more."""\n')
    assert first_sentence(silent) == "Says what it is for."
