"""How much of a run there is, how much of it is done, and how long the rest will take.

The work is that of the estimate: seconds and cells of every batch, seconds of every training.
What jobs say of themselves moves it on, and the pace of this run corrects the estimate.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from blockwise.estimate.bill import BYSTANDERS, Line
from blockwise.run.run_events import RunEvent

PROGRESS_LINE = re.compile(r"(?P<title>.+?): (?P<done>\d+)/(?P<total>\d+) \w+,")
"""A line of `blockwise.progress` in a log."""

PLAYING, PLAYING_A_PART, JOINING = "run_compaction", "run_compaction_part", "join_compaction"
MIN_SECONDS_FOR_PACE = 30.0  # of estimated work; before that the estimate stands as it is
HOUR_S = 3600.0


@dataclass
class Task:
    """A batch, or an experiment of the training study. Units: `seconds` estimated seconds."""

    num_cells: int
    seconds: float
    finished_parts: int = 0  # steps or cells of parts that are done
    current: int = 0  # of the part at work
    total: int = 0  # of all parts, where a job has said it
    part_total: int = 0
    is_done: bool = False

    @property
    def done_frac(self) -> float:
        """Share that is done."""
        if self.is_done:
            return 1.0
        total = max(self.total, self.num_cells)
        return min(1.0, (self.finished_parts + self.current) / total) if total else 0.0


class RunWork:
    """The work of one run.

    Args:
        lines: the estimate's; none where nothing is estimated.
        runs: folder in which finished jobs leave their records.
    """

    def __init__(self, lines: Iterable[Line], runs: Path) -> None:
        self.tasks: dict[str, Task] = {}
        for line in lines:
            if line.stage == BYSTANDERS:
                continue
            is_batch = bool(line.dataset)
            title = f"{line.backbone} on {line.dataset}" if is_batch else line.experiment
            task = self.tasks.setdefault(title, Task(0, 0.0))
            task.seconds += line.wall_h * HOUR_S
            task.num_cells += line.num_cells if is_batch else 0
            path = f"compaction/{line.backbone}/{line.dataset}.json" if is_batch else ""
            found = [runs / path] if path else [*runs.glob(f"mxfp4/*/{line.experiment}*")]
            task.is_done = any(one.exists() for one in found)
        self._first_done_s = self.done_s

    def begin(self, event: RunEvent) -> None:
        """A job is about to start: what it makes is not done, whatever lies there."""
        if event.rule in (PLAYING, PLAYING_A_PART) or "experiment" in event.wildcards:
            task = self.tasks.get(_title_of(event))
            if task is not None and task.is_done:
                task.is_done, task.finished_parts, task.current = False, 0, 0
                self._first_done_s = min(self._first_done_s, self.done_s)

    def hear(self, line: str) -> None:
        """A job's own line of progress."""
        found = PROGRESS_LINE.match(line)
        task = self.tasks.get(found["title"]) if found else None
        if found is None or task is None:
            return
        task.current, task.part_total = int(found["done"]), int(found["total"])
        if not task.num_cells:  # a training counts steps, which no estimate of cells knows
            task.total = max(task.total, task.part_total)

    def finish(self, event: RunEvent) -> None:
        """A job has ended well."""
        task = self.tasks.get(_title_of(event))
        if task is None:
            return
        if event.rule == PLAYING_A_PART:
            task.finished_parts, task.current = task.finished_parts + task.part_total, 0
        else:
            task.is_done = True

    @property
    def seconds(self) -> float:
        """All estimated seconds."""
        return sum(task.seconds for task in self.tasks.values())

    @property
    def done_s(self) -> float:
        """Estimated seconds of what is done."""
        return sum(task.seconds * task.done_frac for task in self.tasks.values())

    @property
    def cells(self) -> tuple[int, int]:
        """Cells that are done, and all of them."""
        done = sum(round(task.num_cells * task.done_frac) for task in self.tasks.values())
        return done, sum(task.num_cells for task in self.tasks.values())

    def left_s(self, elapsed_s: float) -> float:
        """Seconds that the rest will take at the pace of this run.

        Args:
            elapsed_s: since its first job.
        """
        fresh_s, left_s = self.done_s - self._first_done_s, self.seconds - self.done_s
        return left_s * (elapsed_s / fresh_s if fresh_s > MIN_SECONDS_FOR_PACE else 1.0)


def _title_of(event: RunEvent) -> str:
    """What the job of an event calls itself in its lines; empty where no task is meant."""
    known = event.wildcards
    if event.rule in (PLAYING, PLAYING_A_PART, JOINING):
        return f"{known['backbone']} on {known['dataset']}"
    return known.get("experiment", "")
