"""The overall bar of a run: jobs, cells and minutes left, and one line for each job that failed.

On a terminal the bar stands below what is said, with what the last job said beside it; a log gets
the words of jobs as they come, and a line on the whole every half minute.
"""

import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from blockwise.reproduce.run_work import RunWork
from blockwise.run.run_events import EventKind, RunEvent

PLAIN_INTERVAL_S = 30.0  # jobs speak every ten seconds already
MINUTE_S = 60.0
NUM_SHOWN_CHARS = 70  # of what a job says, beside the bar
ERROR_SIGN = "error: "


class RunProgress:
    """What a run shows while it goes on.

    Args:
        title: what is run.
        console: where to.
        work: how much there is to do; None where only jobs are counted.
    """

    def __init__(self, title: str, console: Console, work: RunWork | None) -> None:
        self._title, self._console, self.work = title, console, work
        self._begin_s = self._last_line_s = time.monotonic()
        self._num_jobs = self._num_finished = 0
        self._jobs: dict[int, RunEvent] = {}
        self.failures: list[RunEvent] = []
        self.refusals: list[str] = []
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[amount]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[now]}", markup=False, style="dim"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=1.0, amount="", now="")

    def __enter__(self) -> "RunProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def see(self, event: RunEvent) -> None:
        """Take an event of Snakemake's."""
        match event.kind:
            case EventKind.PLANNED:
                self._num_jobs = event.num_jobs
            case EventKind.DESCRIBED:
                self._jobs[event.job] = event
                if self.work is not None:
                    self.work.begin(event)
            case EventKind.FINISHED:
                self._num_finished += 1
                if self.work is not None and event.job in self._jobs:
                    self.work.finish(self._jobs[event.job])
            case EventKind.FAILED:
                self.failures.append(self._jobs.get(event.job, event))
            case EventKind.REFUSED:
                self.refusals.append(event.text)
        self._update()

    def hear(self, line: str) -> None:
        """Take a line that a job, or Snakemake before it logs, has written."""
        if self.work is not None:
            self.work.hear(line)
        if not self._console.is_terminal:
            print(line, file=self._console.file, flush=True)
        self._update(now=line[:NUM_SHOWN_CHARS])

    def _update(self, now: str | None = None) -> None:
        amount = self.in_words()
        self._bar.update(self._task, completed=self._done_frac(), amount=amount)
        if now is not None:
            self._bar.update(self._task, now=now)
        now_s = time.monotonic()
        if not self._console.is_terminal and now_s - self._last_line_s >= PLAIN_INTERVAL_S:
            self._last_line_s = now_s
            print(f"{self._title}: {amount}", file=self._console.file, flush=True)

    def _done_frac(self) -> float:
        if self.work is not None and self.work.seconds:
            return self.work.done_s / self.work.seconds
        return self._num_finished / self._num_jobs if self._num_jobs else 0.0

    def in_words(self) -> str:
        """How far the run is."""
        if not self._num_jobs:
            return "planning"
        words = f"job {self._num_finished}/{self._num_jobs}"
        if self.work is None or not self.work.seconds:
            return words
        done, total = self.work.cells
        left_min = self.work.left_s(time.monotonic() - self._begin_s) / MINUTE_S
        return f"{words}, {done}/{total} cells, about {left_min:.0f} min left"


def failure_words(event: RunEvent) -> str:
    """A failed job, the log that says why, and the last error in it."""
    wildcards = ", ".join(event.wildcards.values())
    job = f"{event.rule} ({wildcards})" if wildcards else event.rule
    logs = [log for log in event.logs if Path(log).is_file()]
    if not logs:
        return f"{job} failed; Snakemake's log in .snakemake/log says why"
    said = [
        line.partition(ERROR_SIGN)[2]
        for log in logs
        for line in Path(log).read_text(encoding="utf-8", errors="replace").splitlines()
        if line.startswith(ERROR_SIGN)
    ]
    why = f": {said[-1]}" if said else ""
    return f"{job} failed{why}\n    its log: {', '.join(logs)}"
