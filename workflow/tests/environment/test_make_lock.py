import itertools
from pathlib import Path

import make_lock
import pytest
from environments import ADAPTERS, CPU, ENVIRONMENTS, GPU
from indexes import index_options


def test_pips_index_settings_are_handed_on(tmp_path):
    listing = [
        "global.index-url='https://index.example/simple'",
        "global.extra-index-url='https://extra.example/simple'",
        f"global.find-links='/nowhere {tmp_path}'",
        "global.timeout='10'",
    ]
    assert index_options(listing) == [
        "--find-links",
        str(tmp_path),
        "--default-index",
        "https://index.example/simple",
    ]


def test_the_environment_wins_over_files_in_any_order(tmp_path):
    listing = [f":env:.find-links='{tmp_path}'", "global.find-links='/usr'"]
    for lines in (listing, listing[::-1]):
        assert index_options(lines) == ["--find-links", str(tmp_path)]


def test_nothing_configured_means_no_options():
    assert index_options([":env:.cert='/x.pem'"]) == []


def overrides_of(command):
    return [after for word, after in itertools.pairwise(command) if word == "--overrides"]


def test_the_resolver_is_told_the_promised_platform_and_what_to_leave_out():
    command = make_lock.compile_command(Path("uv"), Path("out"), CPU, upgrade=False)
    assert "x86_64-manylinux_2_31" in command
    assert command[command.index("--excludes") + 1] == "cpu.excluded"
    assert "--upgrade" not in command
    assert overrides_of(command) == ["overruled.in"]
    assert make_lock.compile_command(Path("uv"), Path("out"), CPU, upgrade=True)[-1] == "--upgrade"


def test_the_gpu_lock_asks_for_all_that_the_cpu_s_asks_for_and_its_own_words_win():
    command = make_lock.compile_command(Path("uv"), Path("out"), GPU, upgrade=False)
    assert command[3:5] == ["cpu.in", "gpu.in"]
    assert overrides_of(command) == ["overruled.in", "gpu.in"]
    assert command[command.index("--excludes") + 1] == "gpu.excluded"


def test_only_a_lock_of_the_ordinary_index_holds_digests():
    for environment in (CPU, ADAPTERS):
        command = make_lock.compile_command(Path("uv"), Path("out"), environment, upgrade=False)
        assert ("--generate-hashes" in command) == (environment == ADAPTERS)


def test_a_line_of_the_lock_keeps_its_indentation():
    assert make_lock.tidied("rich==15.0.0    # via typer") == "rich==15.0.0  # via typer"
    assert make_lock.tidied("    --hash=sha256:00 \\") == "    --hash=sha256:00 \\"
    assert make_lock.tidied("    # via typer") == "    # via typer"


@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_a_lock_says_how_it_is_made(environment, project_folder):
    text = (project_folder / "envs" / environment.lock).read_text()
    assert text.startswith(make_lock.header(environment))
