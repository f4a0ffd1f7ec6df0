"""CONTRIBUTING.md: its worked changes apply to this tree, and pass the tests that it names."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECTION = re.compile(r"^## (A .+?|An .+?)$(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
DIFF = re.compile(r"^```diff\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^    \.venv/bin/(.+)$", re.MULTILINE)
CHANGES = dict(SECTION.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))


def applied(title, tmp_path):
    """A copy of the tree in which the change of a section is made."""
    tree = tmp_path / "tree"
    skip = shutil.ignore_patterns("__pycache__")
    for name in ("workflow", "config", "envs"):
        shutil.copytree(ROOT / name, tree / name, ignore=skip)
    for name in ("pyproject.toml", "Snakefile"):
        shutil.copy(ROOT / name, tree)
    (diff,) = DIFF.findall(CHANGES[title])
    done = subprocess.run(
        ["git", "apply"], cwd=tree, input=diff.encode(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return tree


def test_there_are_four_worked_changes():
    assert list(CHANGES) == ["A layout", "A strategy", "An MXFP4 recipe", "A dataset"]


@pytest.mark.parametrize("title", CHANGES)
def test_a_worked_change_applies(title, tmp_path):
    assert applied(title, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("title", CHANGES)
def test_a_worked_change_passes_its_tests(title, tmp_path):
    tree = applied(title, tmp_path)
    commands = COMMAND.findall(CHANGES[title])
    assert any(command.startswith("pytest ") for command in commands)
    environment = {**os.environ, "PYTHONPATH": str(tree / "workflow" / "src")}
    for command in commands:
        program, *arguments = shlex.split(command)
        module = ["-m", "pytest"] if program == "pytest" else []
        done = subprocess.run(
            [sys.executable, *module, *arguments],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
