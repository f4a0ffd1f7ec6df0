"""What a release says of itself in several places is the same in all of them."""

import re

import yaml
from build_env import read_pins
from check_platform import PYTHONS, words_of
from environments import CPU

from blockwise import __version__


def test_version_and_date_are_those_of_the_changelogs_newest_release(project_folder):
    changelog = (project_folder / "CHANGELOG.md").read_text()
    version, date = re.search(
        r"^## (\d+\.\d+\.\d+) \((\d{4}-\d\d-\d\d)\)$", changelog, re.M
    ).groups()
    citation = yaml.safe_load((project_folder / "CITATION.cff").read_text())
    assert (__version__, citation["version"]) == (version, version)
    assert str(citation["date-released"]) == date
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()


def test_tests_run_on_every_python_of_the_package(project_folder):
    workflow = yaml.safe_load((project_folder / ".github/workflows/check.yml").read_text())
    tested = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert tested == [words_of(python) for python in PYTHONS]
    targets = (project_folder / "Makefile").read_text()
    for job in workflow["jobs"].values():
        commands = [step["run"] for step in job["steps"] if "run" in step]
        for command in commands:
            assert re.search(rf"^{command.split()[1]}: ", targets, re.M), command


def test_hooks_run_tools_of_the_lock(project_folder):
    (local,) = yaml.safe_load((project_folder / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    pins = read_pins(project_folder / "envs" / CPU.lock)
    for hook in local["hooks"]:
        program = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert program == "python" or program in pins, hook
        assert hook["language"] == "system"
