"""An event loop whose clock runs only while everybody waits.

Whatever a coroutine awaits with a delay is over at once and has taken that long by the loop's
clock. So the protocols' own concurrency (questions eight at a time, capped workers, bystanders
that ask until a compaction ends) happens as it would on a server, without its hours.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _SkippingSelector(selectors.DefaultSelector):
    """Waits for nothing: tells how long the loop would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready now; the time that was to be waited has passed."""
        assert timeout is not None, "everybody waits for somebody: a deadlock"
        self.skipped += max(timeout, 0.0)
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Time starts at zero and jumps from one timer to the next."""

    def __init__(self) -> None:
        self._skipping = _SkippingSelector()
        super().__init__(self._skipping)

    def time(self) -> float:
        """What has been waited so far."""
        return self._skipping.skipped


def run_in_virtual_time(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop of its own."""
    loop = VirtualTimeLoop()
    try:  # no asyncio.Runner: its signal handler writes out the result each time, megabytes of it
        return loop.run_until_complete(work)
    finally:
        loop.close()
