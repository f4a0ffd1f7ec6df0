"""Everything `make check` holds the repository against, one line each.

A check is a command that must end with status 0; only Snakemake's lint, which cannot be
told of exceptions, is compared with a written list of them. Output is kept in logs/ and
shown only where a check fails, so that a green run is a dozen short lines.
"""

import argparse
import fnmatch
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from blockwise.errors import BlockwiseError, run_command

BASE_CONFIG = "config/config.yaml"
PROFILES = "config/profiles"
LINT_ALLOW_FILE = Path("workflow/tests/lint_allow.txt")
LOG_FOLDER = Path("logs/check")
LIMIT_S = 300  # the slowest, mypy without its cache, takes a tenth of this on two cores
SHOWN_LINES = 40  # of a failed check; the rest is in its log
LINT_SUBJECT = re.compile(r"^Lints for (?:rule (?P<rule>\S+)|snakefile (?P<file>.+?))(?: \(.*)?:$")
LINT_TITLE = re.compile(r"^    \* (?P<title>.+):$")


class Check(NamedTuple):
    """A named command; `compares_lint` marks the one whose findings may be allowed."""

    name: str
    command: list[str]
    compares_lint: bool = False


class Lint(NamedTuple):
    """One finding of `snakemake --lint`, or one line of the allow-list as patterns."""

    subject: str
    title: str


class ChecksError(BlockwiseError):
    """At least one check failed."""


def list_checks(folder: Path) -> list[Check]:
    """The checks of a project folder; overlays and ways to run jobs are dry-run with the base."""
    programs = Path(sys.executable).parent
    snakemake = [str(programs / "snakemake"), "--configfile", BASE_CONFIG]
    planned = ["--dry-run", "--rerun-incomplete", "--nolock", "--quiet", "all"]
    dry_run = ["--cores", "1", *planned]
    profiles = sorted(path.parent.name for path in (folder / PROFILES).glob("*/config.yaml"))
    overlays = sorted(path.name for path in (folder / "config").glob("*.yaml") if _is_overlay(path))
    return [
        Check("ruff check", [str(programs / "ruff"), "check"]),
        Check("ruff format", [str(programs / "ruff"), "format", "--check"]),
        Check("mypy", [str(programs / "mypy")]),
        Check("snakefmt", [str(programs / "snakefmt"), "--check", "Snakefile", "workflow/rules"]),
        Check("snakemake lint", [*snakemake, "--lint"], compares_lint=True),
        Check("schema drift", [sys.executable, "-m", "blockwise.config.schema", "--check"]),
        Check("map drift", [sys.executable, "-m", "blockwise.dev.code_map", "--check"]),
        Check("contract", [sys.executable, "-m", "blockwise.dev.contract_table", "--check"]),
        Check("dry run config.yaml", [*snakemake, *dry_run]),
        *(Check(f"dry run {name}", [*snakemake, f"config/{name}", *dry_run]) for name in overlays),
        *(  # without --cores: where jobs run elsewhere it would limit their threads
            Check(
                f"dry run on {name}",
                [*snakemake, "--workflow-profile", f"{PROFILES}/{name}", *planned],
            )
            for name in profiles
        ),
    ]


def _is_overlay(path: Path) -> bool:
    """Whether a file of config/ is a profile laid over the base (claims.yaml is data)."""
    named = re.search(r"^profile:", path.read_text(encoding="utf-8"), re.MULTILINE)
    return named is not None and path.name != Path(BASE_CONFIG).name


def parse_lints(output: str) -> list[Lint]:
    """The findings in the text that `snakemake --lint` prints."""
    lints, subject = [], ""
    for line in output.splitlines():
        if match := LINT_SUBJECT.match(line):
            subject = match["rule"] or Path(match["file"]).name
        elif match := LINT_TITLE.match(line):
            lints.append(Lint(subject, match["title"]))
    return lints


def parse_allowed(lines: Iterable[str]) -> list[Lint]:
    """The allow-list: `rule | lint | reason` a line, patterns in the first two.

    Raises:
        ChecksError: a line has not three parts, or gives no reason.
    """
    allowed = []
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        parts = [part.strip() for part in line.split("|")]
        if len(parts) != 3 or not all(parts):
            raise ChecksError(f"{LINT_ALLOW_FILE}: {line!r} is not `rule | lint | reason`")
        allowed.append(Lint(parts[0], parts[1]))
    return allowed


def compare_lints(found: list[Lint], allowed: list[Lint]) -> list[str]:
    """What is wrong between findings and allow-list, one line each."""

    def matches(lint: Lint, pattern: Lint) -> bool:
        return fnmatch.fnmatchcase(lint.subject, pattern.subject) and fnmatch.fnmatchcase(
            lint.title, pattern.title
        )

    unlisted = [lint for lint in found if not any(matches(lint, one) for one in allowed)]
    unused = [one for one in allowed if not any(matches(lint, one) for lint in found)]
    return [
        *(f"{lint.subject}: {lint.title} (mend it, or list it with a reason)" for lint in unlisted),
        *(f"allowed but not found: {one.subject} | {one.title} (remove it)" for one in unused),
    ]


def run_check(check: Check, folder: Path) -> list[str]:
    """Run one check and keep its output in the log folder; returns what failed, or nothing."""
    log = folder / LOG_FOLDER / f"{check.name.replace(' ', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        result = subprocess.run(
            check.command,
            cwd=folder,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return [f"no end after {LIMIT_S} s: {' '.join(check.command)}"]
    log.write_text(result.stdout, encoding="utf-8")
    if check.compares_lint:
        found = parse_lints(result.stdout)
        if result.returncode == 0 or found:
            allowed = (folder / LINT_ALLOW_FILE).read_text(encoding="utf-8").splitlines()
            return compare_lints(found, parse_allowed(allowed))
    if result.returncode == 0:
        return []
    lines = result.stdout.splitlines() or [f"status {result.returncode} without a word"]
    return [*lines[-SHOWN_LINES:], f"(all of it: {log.relative_to(folder)})"]


def run_checks(checks: list[Check], folder: Path, num_at_once: int) -> list[str]:
    """Run the checks side by side and report them in their order; returns the names of failed ones.

    They share nothing but what they read: each has its own log, and dry runs take no lock.
    """

    def timed(check: Check) -> tuple[list[str], float]:
        started_s = time.monotonic()
        return run_check(check, folder), time.monotonic() - started_s

    failed = []
    with ThreadPoolExecutor(num_at_once) as pool:
        for check, (problems, wall_s) in zip(checks, pool.map(timed, checks), strict=True):
            print(f"{'FAILED' if problems else 'ok':6}  {wall_s:5.1f} s  {check.name}", flush=True)
            for line in problems:
                print(f"        {line}", flush=True)
            if problems:
                failed.append(check.name)
    return failed


def _main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--only", help="run only the checks whose name contains this")
    arguments = parser.parse_args()
    folder = Path.cwd()
    checks = [check for check in list_checks(folder) if (arguments.only or "") in check.name]
    if not checks:
        names = ", ".join(check.name for check in list_checks(folder))
        raise ChecksError(f"no check is called {arguments.only!r}; there are: {names}")
    failed = run_checks(checks, folder, num_at_once=len(os.sched_getaffinity(0)))
    if failed:
        raise ChecksError(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")
    print(f"all {len(checks)} checks passed")


if __name__ == "__main__":
    run_command(_main)
