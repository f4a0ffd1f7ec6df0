"""Makes a lock: exact versions of everything that an environment asks for, less its exclusions.

The resolver is uv, in a throwaway environment of its own, because pip can neither leave
a package out of a resolution nor resolve without downloading. uv does not read pip's
configuration, so what it says about indexes is handed on. Versions already in the lock
are kept while they fit; `--upgrade` lets them move. A lock that does not exist yet starts from
the CPU's, so that what both hold has one version.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import environments
from check_platform import GLIBC_MINIMUM, PYTHON_OF_RESULTS, words_of
from environments import CPU, Environment
from indexes import index_options

ENVS = Path(__file__).resolve().parent
UV = "uv==0.13.8"  # a resolver of another version may word or order the lock otherwise
SOURCE_ONLY = ("connection-pool",)  # published without a wheel; everything else must have one
HEADER = """\
# Made by `{command}` from {asked_for}, less {excluded}: edit those, not this.
# Install with --no-deps (README.md says why): pip install --no-deps -r {lock}
"""


def header(environment: Environment) -> str:
    """What stands above the pins of a lock."""
    return HEADER.format(
        command=environment.lock_command,
        asked_for=" and ".join(environment.asked_for),
        excluded=environment.excluded,
        lock=environment.lock,
    )


def compile_command(
    uv: Path, output: Path, environment: Environment, *, upgrade: bool
) -> list[str]:
    """The uv command that resolves an environment for the platforms the project promises."""
    glibc = "_".join(str(part) for part in GLIBC_MINIMUM)
    command = [str(uv), "pip", "compile", *environment.asked_for, "--output-file", str(output)]
    command += ["--excludes", environment.excluded, "--no-header", "--quiet"]
    command += [word for name in environment.overrides for word in ("--overrides", name)]
    command += ["--annotation-style", "line"]
    command += ["--python-version", words_of(PYTHON_OF_RESULTS)]
    command += ["--python-platform", f"x86_64-manylinux_{glibc}", "--only-binary", ":all:"]
    command += [word for name in SOURCE_ONLY for word in ("--no-binary", name)]
    command += ["--generate-hashes"] if environment.has_hashes else []
    return [*command, *(["--upgrade"] if upgrade else [])]


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    # In this folder, so that annotations name files of it, wherever make was called.
    return subprocess.run(command, cwd=ENVS, check=False, capture_output=True, text=True)


def tidied(line: str) -> str:
    """A line of uv's output with its columns closed up and its indentation kept."""
    indentation = line[: len(line) - len(line.lstrip())]
    return indentation + " ".join(line.split()).replace(" # ", "  # ")


def resolve(folder: Path, environment: Environment, *, upgrade: bool) -> str:
    """Resolve in a throwaway environment below `folder` and return the lock's text."""
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    programs = folder / "venv/bin"
    subprocess.run([str(programs / "pip"), "install", "--quiet", UV], check=True)
    listing = subprocess.run(
        [str(programs / "pip"), "config", "list"], check=True, capture_output=True, text=True
    )
    output = folder / environment.lock
    for known in (ENVS / CPU.lock, ENVS / environment.lock):  # the second wins where it exists
        if known.exists():
            shutil.copy(known, output)
    command = compile_command(programs / "uv", output, environment, upgrade=upgrade)
    options = index_options(listing.stdout.splitlines())
    first = _run(*command, *options)
    if first.returncode != 0 and environment.has_own_torch_index:
        print("lock: not resolvable from pip's own indexes; adding PyTorch's CPU index")
        second = _run(*command, *options, "--torch-backend", "cpu")
        if second.returncode != 0:
            raise SystemExit(f"error: no resolution\n{first.stderr}\n{second.stderr}")
    elif first.returncode != 0:
        raise SystemExit(f"error: no resolution\n{first.stderr}")
    lines = output.read_text(encoding="utf-8").splitlines()
    pins = [tidied(line) for line in lines if line and not line.startswith("#")]
    return header(environment) + "\n".join(pins) + "\n"


def main() -> None:
    """Command line: write a lock and say what moved."""
    parser = argparse.ArgumentParser(description="Resolve what an environment asks for.")
    environments.add_argument(parser)
    parser.add_argument("--upgrade", action="store_true", help="let pinned versions move")
    arguments = parser.parse_args()
    environment = environments.ENVIRONMENTS[arguments.environment]
    lock = ENVS / environment.lock
    before = lock.read_text(encoding="utf-8") if lock.exists() else ""
    with tempfile.TemporaryDirectory() as folder:
        after = resolve(Path(folder), environment, upgrade=arguments.upgrade)
    if after == before:
        print(f"lock: envs/{lock.name} is up to date")
        return
    unfinished = lock.with_suffix(".tmp")
    unfinished.write_text(after, encoding="utf-8")
    unfinished.replace(lock)
    changed = sorted(set(after.splitlines()) ^ set(before.splitlines()))
    print(f"lock: wrote envs/{lock.name}, {len(changed)} lines differ from the one before")


if __name__ == "__main__":
    main()
