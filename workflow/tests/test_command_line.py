"""The command `blockwise`: what it lists, how fast it does, and how it refuses."""

import importlib
import subprocess
import sys
import time

import click
import pytest

from blockwise.__main__ import SUBCOMMANDS, command
from blockwise.command_line import call
from blockwise.errors import ConfigError

HELP_LIMIT_S = 0.5
HEAVY = ("pandas", "torch", "transformers", "pydantic", "blockwise.compaction")


def best_start_s(*words, rounds=5):
    """The shortest of several starts: a busy machine makes the others longer."""
    times = []
    for _ in range(rounds):
        begin_s = time.perf_counter()
        subprocess.run([sys.executable, "-m", "blockwise", *words], check=True, capture_output=True)
        times.append(time.perf_counter() - begin_s)
    return min(times)


def test_the_help_comes_at_once_and_imports_nothing_that_it_lists():
    assert best_start_s("--help") < HELP_LIMIT_S
    listed = f"import sys, blockwise.__main__; print([m for m in {HEAVY!r} if m in sys.modules])"
    said = subprocess.run(
        [sys.executable, "-c", listed], check=True, capture_output=True, text=True
    )
    assert said.stdout.strip() == "[]"


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_subcommand_is_there_and_says_how_it_is_used(name, capsys):
    module, _ = SUBCOMMANDS[name]
    found = importlib.import_module(module).command
    assert isinstance(found, click.Command)
    assert found.name == name
    call(command, [name, "--help"])
    in_group = capsys.readouterr().out
    call(found, ["--help"])
    assert capsys.readouterr().out == in_group  # `python -m` of the module reads the same
    assert f"Usage: blockwise {name}" in in_group


def test_alone_it_lists_its_subcommands(capsys):
    call(command, [])
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in SUBCOMMANDS)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["compute"], "No such command 'compute'.*; see `blockwise --help`"),
        (["verify"], "Missing argument 'RESULTS'; see `blockwise verify --help`"),
        (["verify", "/no/such"], "'/no/such' does not exist; see `blockwise verify --help`"),
        (["estimate", "--device-tflops", "0"], "0 is not in the range x>0"),
    ],
)
def test_a_refusal_is_one_line_that_names_the_help(words, problem):
    with pytest.raises(ConfigError, match=problem) as caught:
        call(command, words)
    assert "\n" not in str(caught.value)


def test_a_refusal_ends_the_process_with_status_2():
    words = [sys.executable, "-m", "blockwise", "verify", "--nonsense"]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: No such option '--nonsense'; see `blockwise verify --help`\n"
