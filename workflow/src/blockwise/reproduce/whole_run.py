"""Run a configuration from end to end: `blockwise reproduce`, which `make reproduce` calls.

Snakemake runs below this process, in a session of its own, so that Ctrl-C reaches one process
only. That process tells Snakemake to end, which tells its jobs (`run.stop_jobs`); everything that
is finished is kept, and the last line says how to go on.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from blockwise.artifacts import read_model
from blockwise.command_line import config_files, run
from blockwise.config.load import DEFAULT_FILE, load_profile
from blockwise.errors import BlockwiseError
from blockwise.reproduce.run_progress import RunProgress, failure_words
from blockwise.reproduce.run_work import RunWork
from blockwise.run.listing import print_listing
from blockwise.run.manifest import Manifest
from blockwise.run.run_events import RunEvent, decode
from blockwise.run.run_lock import RunError, clear_the_way
from blockwise.serving.process_signals import end_with_parent, raise_on_sigterm

GO_ON = "the same command goes on from here, and keeps what is finished"
SNAKEMAKE_LOGS = ".snakemake/log"
NUM_SHOWN_LINES = 12  # of what Snakemake says where it refuses a run
SUPERFLUOUS = ("Exiting because a job execution failed", "WorkflowError")


class Snakemake:
    """Snakemake on one configuration.

    Args:
        files: the configuration.
        cores: as Snakemake takes them.
        console: where progress goes.
    """

    def __init__(self, files: Sequence[Path], cores: str, console: Console) -> None:
        self._console = console
        self._command = [sys.executable, "-m", "snakemake", "--cores", cores]
        self._options = ["--configfile", *map(str, files), "--rerun-incomplete"]
        self._options += ["--logger", "blockwise"]

    @property
    def unlock(self) -> list[str]:
        """The command that removes a killed run's lock."""
        return [*self._command, "--unlock", *self._options]

    def run(self, title: str, work: RunWork | None, *targets: str) -> None:
        """Run until it ends.

        Raises:
            RunError: it failed; the message names every failed job with its log.
            KeyboardInterrupt: somebody stopped it; it has ended.
        """
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        here = str(Path(sys.executable).parent)
        environment["PATH"] = os.pathsep.join([here, environment.get("PATH", "")])
        process = subprocess.Popen(
            [*self._command, *targets, *self._options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509  threads here call nothing that forks
        )
        progress = RunProgress(title, self._console, work)
        try:
            with progress:
                _follow(process, progress)
        except (KeyboardInterrupt, SystemExit):
            _end(process)
            raise KeyboardInterrupt(f"stopped; {GO_ON}") from None
        if process.wait() != 0:
            raise RunError(_failure(progress))


def _follow(process: "subprocess.Popen[str]", progress: RunProgress) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        text = line.rstrip("\n")
        event = decode(text)
        if event is not None:
            progress.see(event)
        elif text.strip():
            progress.hear(text)


def _end(process: "subprocess.Popen[str]") -> None:
    """Tell it to end and wait; a second Ctrl-C ends it at once, and nothing finished is lost."""
    process.terminate()
    try:
        process.communicate()
    except (KeyboardInterrupt, SystemExit):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _failure(progress: RunProgress) -> str:
    if progress.failures:
        listed = "\n".join(f"  - {failure_words(event)}" for event in progress.failures)
        number = len(progress.failures)
        jobs = "1 job" if number == 1 else f"{number} jobs"
        return f"{jobs} failed; mend what is named, then {GO_ON}:\n{listed}"
    lines = [line for text in progress.refusals for line in text.splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(SUPERFLUOUS)][:NUM_SHOWN_LINES]
    return "\n".join(said) or f"Snakemake ended without a word; its log is in {SNAKEMAKE_LOGS}"


def _counted(failures: Sequence[RunEvent]) -> str:
    return "1 job" if len(failures) == 1 else f"{len(failures)} jobs"


def _estimated_work(files: Sequence[Path], runs: Path) -> RunWork | None:
    # Imported here: the report needs no estimate, and this takes seconds to load.
    from blockwise.estimate.__main__ import estimate  # noqa: PLC0415
    from blockwise.estimate.hardware import (  # noqa: PLC0415
        H100_GB_PER_S,
        H100_GIB,
        H100_TFLOPS,
        gpu,
    )

    try:
        bill = estimate(files, None, gpu(H100_GIB, H100_TFLOPS, H100_GB_PER_S))
    except BlockwiseError:  # Snakemake will say the same, with everything around it
        return None
    return RunWork(bill.lines, runs)


@click.command("reproduce")
@config_files
@click.option("--cores", default="all", show_default=True, help="Cores that jobs may take.")
def command(config: tuple[Path, ...], cores: str) -> None:
    """Run a configuration, or what is missing of it: tables, figures, report and crate.

    CONFIG are configuration files in order; none means config/config.yaml. Run it in the
    repository's folder.
    """
    raise_on_sigterm()
    files = config or (DEFAULT_FILE,)
    console = Console(stderr=True)
    results = Path("results") / load_profile(files).profile
    snakemake = Snakemake(files, cores, console)
    done = clear_the_way(Path.cwd().resolve(), snakemake.unlock)
    if done is not None:
        click.echo(f"unlock: {done}")
    work = _estimated_work(files, results / "runs")
    snakemake.run(f"reproduce {results.name}", work)
    report = results / "report.html"
    snakemake.run("report", None, "--report", str(report))
    snakemake.run("crate", None, "crate")
    print_listing(read_model(results / "MANIFEST.json", Manifest), sys.stdout)
    click.echo(f"reproduce: the report is {report}; {results / 'crate'} can be deposited")


if __name__ == "__main__":
    run(command)
