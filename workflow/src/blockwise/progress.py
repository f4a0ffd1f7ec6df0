"""Progress of long work: a live bar on a terminal, plain lines in a log.

Both say the same: units done, a rate in tokens per second, and the time that is left.
"""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

PLAIN_INTERVAL_S = 10.0  # a log stays readable, and a watcher knows that work goes on


class WorkProgress:
    """Counts finished pieces of work and tokens, and shows both.

    Args:
        title: what is being done, e.g. the batch.
        total: pieces of work there are, finished ones included.
        done: pieces that were finished before.
        unit: plural noun of the pieces.
    """

    def __init__(self, title: str, total: int, done: int = 0, unit: str = "cells") -> None:
        self._title, self._total, self._done, self._unit = title, total, done, unit
        self._first_done = done
        self._tokens = 0
        self._state = ""
        self._begin_s = self._last_line_s = time.monotonic()
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn(unit),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=total, completed=done, rate="")

    def __enter__(self) -> "WorkProgress":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        self._plain_line(final=True)

    def say(self, text: str) -> None:
        """Print one line above the bar, or into the log."""
        if self._console.is_terminal:
            self._console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def advance(self, num_tokens: int, pieces: int = 1, state: str = "") -> None:
        """Count finished pieces and the tokens that they processed; `state` stands beside them."""
        self._done += pieces
        self._tokens += num_tokens
        self._state = state
        self._bar.update(self._task, completed=self._done, rate=self._rate())
        if time.monotonic() - self._last_line_s >= PLAIN_INTERVAL_S:
            self._plain_line(final=False)

    def _rate(self) -> str:
        elapsed_s = max(time.monotonic() - self._begin_s, 1e-9)
        rate = f"{self._tokens / elapsed_s:,.0f} tokens/s"
        return f"{rate}, {self._state}" if self._state else rate

    def _plain_line(self, *, final: bool) -> None:
        if self._console.is_terminal:
            return
        self._last_line_s = time.monotonic()
        elapsed_s = self._last_line_s - self._begin_s
        fresh = self._done - self._first_done
        left = ""
        if fresh and not final:
            left = f", about {elapsed_s / fresh * (self._total - self._done):.0f} s left"
        print(
            f"{self._title}: {self._done}/{self._total} {self._unit}, {self._rate()}, "
            f"{elapsed_s:.0f} s{left}",
            file=sys.stderr,
            flush=True,
        )
