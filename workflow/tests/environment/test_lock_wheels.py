"""Every pin of every lock has a wheel for every Python of the project, by pip's own dry run."""

import subprocess
import sys

import pytest
from build_env import REQUIREMENT
from check_platform import GLIBC_MINIMUM, PYTHONS, words_of
from environments import ENVIRONMENTS
from make_lock import SOURCE_ONLY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ELSEWHERE = ("torch==2.13.0+cpu", *(f"{name}==" for name in SOURCE_ONLY))
"""Not asked for here: PyTorch's own index has the CPU build of torch, and few others have it; what
is published without a wheel is built."""

PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(GLIBC_MINIMUM[1], 4, -1)]
PLATFORMS += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]


@pytest.mark.parametrize("python", PYTHONS, ids=words_of)
@pytest.mark.parametrize("name", sorted(set(ENVIRONMENTS) - {"gpu"}))
def test_every_pin_has_a_wheel(project_folder, tmp_path, name, python):
    lock = project_folder / "envs" / ENVIRONMENTS[name].lock
    lines = [line for line in lock.read_text().splitlines() if REQUIREMENT.match(line)]
    pins = [REQUIREMENT.match(line).group() for line in lines]
    (tmp_path / "pins.txt").write_text(
        "\n".join(pin for pin in pins if not pin.startswith(ELSEWHERE)) + "\n"
    )
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps"]
    command += ["--ignore-installed", "--only-binary=:all:", "--python-version", words_of(python)]
    command += [word for platform in PLATFORMS for word in ("--platform", platform)]
    command += ["--target", str(tmp_path / "nowhere"), "--requirement", str(tmp_path / "pins.txt")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
