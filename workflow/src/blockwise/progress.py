"""Progress of long work: a live bar on a terminal, plain lines in a log.

Both say the same. Work counts finished pieces, tokens per second and the time that is left; a
download counts bytes.
"""

import sys
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

PLAIN_INTERVAL_S = 10.0  # a log stays readable, and a watcher knows that work goes on


class LiveProgress(ABC):
    """The bar of a terminal, or a line of a log every ten seconds and at the end.

    Args:
        title: what is being done.
        total: how much there is to do, finished parts included; None where nobody knows.
        done: how much was finished before.
        columns: what stands beside the bar.
    """

    def __init__(
        self, title: str, total: int | None, done: int, *columns: str | ProgressColumn
    ) -> None:
        self._title, self._total, self._done = title, total, done
        self._begin_s = self._last_line_s = time.monotonic()
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),  # an address may hold brackets
            BarColumn(bar_width=30),
            *columns,
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=total, completed=done, rate="")

    def __enter__(self) -> Self:
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

    def _count(self, amount: int, rate: str = "") -> None:
        self._done += amount
        self._bar.update(self._task, completed=self._done, rate=rate)
        if time.monotonic() - self._last_line_s >= PLAIN_INTERVAL_S:
            self._plain_line(final=False)

    def _plain_line(self, *, final: bool) -> None:
        if not self._console.is_terminal:
            self._last_line_s = time.monotonic()
            self.say(f"{self._title}: {self._in_words(self._last_line_s - self._begin_s, final)}")

    @abstractmethod
    def _in_words(self, elapsed_s: float, final: bool) -> str:
        """How far it is, for a log."""


class WorkProgress(LiveProgress):
    """Counts finished pieces of work and tokens, and shows both.

    Args:
        title: what is being done, e.g. the batch.
        total: pieces of work there are, finished ones included.
        done: pieces that were finished before.
        unit: plural noun of the pieces.
    """

    def __init__(self, title: str, total: int, done: int = 0, unit: str = "cells") -> None:
        super().__init__(
            title,
            total,
            done,
            MofNCompleteColumn(),
            TextColumn(unit),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._num_pieces, self._first_done, self._unit = total, done, unit
        self._tokens = 0
        self._state = ""

    def advance(self, num_tokens: int, pieces: int = 1, state: str = "") -> None:
        """Count finished pieces and the tokens that they processed; `state` stands beside them."""
        self._tokens += num_tokens
        self._state = state
        self._count(pieces, self._rate())

    def _rate(self) -> str:
        elapsed_s = max(time.monotonic() - self._begin_s, 1e-9)
        rate = f"{self._tokens / elapsed_s:,.0f} tokens/s"
        return f"{rate}, {self._state}" if self._state else rate

    def _in_words(self, elapsed_s: float, final: bool) -> str:
        fresh = self._done - self._first_done
        left = ""
        if fresh and not final:
            left = f", about {elapsed_s / fresh * (self._num_pieces - self._done):.0f} s left"
        counted = f"{self._done}/{self._num_pieces} {self._unit}"
        return f"{counted}, {self._rate()}, {elapsed_s:.0f} s{left}"


class DownloadProgress(LiveProgress):
    """Counts bytes that have arrived.

    Args:
        origin: where they come from.
        num_total_bytes: how many there will be; None where the server does not say.
    """

    def __init__(self, origin: str, num_total_bytes: int | None) -> None:
        columns = DownloadColumn(), TransferSpeedColumn()
        super().__init__(f"fetching {origin}", num_total_bytes, 0, *columns)

    @property
    def num_bytes(self) -> int:
        """How many have arrived."""
        return self._done

    def advance(self, num_bytes: int) -> None:
        """Count bytes that have arrived."""
        self._count(num_bytes)

    def _in_words(self, elapsed_s: float, final: bool) -> str:
        of_total = "" if self._total is None else f" of {self._total / 1e6:.1f}"
        return f"{self._done / 1e6:.1f}{of_total} MB"
