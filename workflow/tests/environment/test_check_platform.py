import ast
import subprocess
import sys

import check_platform
import pytest

GOOD = check_platform.Facts(
    implementation="CPython",
    python=(3, 11),
    has_ensurepip=True,
    system="Linux",
    machine="x86_64",
    libc=("glibc", "2.36"),
    cpu_flags=frozenset({"sse4_2", "avx", "avx2"}),
)


def test_a_fitting_machine_has_no_problem():
    assert check_platform.find_problem(GOOD) is None
    for python in check_platform.PYTHONS:
        assert check_platform.find_problem(GOOD._replace(python=python)) is None
    assert check_platform.find_problem(GOOD._replace(libc=("glibc", "2.31"))) is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"system": "Darwin", "machine": "arm64"}, "Darwin on arm64"),
        ({"machine": "aarch64"}, "Linux on aarch64"),
        ({"libc": ("glibc", "2.28")}, "glibc 2.28"),
        ({"libc": ("", "")}, "another C library"),
        ({"cpu_flags": frozenset({"sse4_2", "avx"})}, "no AVX2"),
        ({"cpu_flags": None}, "cannot be confirmed"),
        ({"python": (3, 10)}, "CPython 3.10"),
        ({"python": (3, 14)}, "CPython 3.14"),
        ({"implementation": "PyPy"}, "PyPy 3.11"),
        ({"has_ensurepip": False}, "python3.11-venv"),
    ],
)
def test_each_missing_piece_gives_one_line_with_a_remedy(changes, named):
    problem = check_platform.find_problem(GOOD._replace(**changes))
    assert problem is not None
    assert named in problem
    assert "\n" not in problem
    assert ";" in problem  # the remedy follows the finding


def test_the_gpu_environment_needs_no_kernels_of_the_cpu_engine():
    assert check_platform.find_problem(GOOD._replace(cpu_flags=None), "gpu") is None
    assert "CPython 3.14" in check_platform.find_problem(GOOD._replace(python=(3, 14)), "gpu")


def test_cpu_flags_come_from_the_first_processor(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu avx avx2\n\nflags\t\t: fpu\n")
    assert check_platform.read_facts(cpuinfo).cpu_flags == {"fpu", "avx", "avx2"}
    assert check_platform.read_facts(tmp_path / "missing").cpu_flags is None


def test_an_old_python_can_read_the_script(project_folder):
    source = (project_folder / "envs/check_platform.py").read_text()
    ast.parse(source, feature_version=(3, 6))


def test_the_command_is_silent_here(project_folder):
    result = subprocess.run(
        [sys.executable, "envs/check_platform.py"],
        cwd=project_folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
