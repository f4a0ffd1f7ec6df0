"""Layouts: how a worker's request shows it the history block it must summarise.

A layout is one module of this package with one function

    worker_messages(history, blocks, index, prompt) -> list[Message]

that maps the conversation, its history blocks, the worker's index and the compaction prompt
to the worker's messages, and one function

    cached_blocks(index, num_blocks) -> int

that says how many history blocks, from the first on, worker `index` of `num_blocks` shows exactly
as the agent's own conversation does, and therefore finds in the prefix cache. One that shows what
follows a history block says so (`SHOWS_LATER = True`): its workers cannot be sent before their
compaction is due. Adding a layout is adding a file; nothing else names it.
"""

import importlib
from collections.abc import Sequence
from typing import Protocol, cast

from blockwise.compaction.history import History
from blockwise.compaction.partition import HistoryBlock
from blockwise.models.renderer import Message


class Layout(Protocol):
    """What a layout module offers."""

    def worker_messages(
        self, history: History, blocks: Sequence[HistoryBlock], index: int, prompt: str
    ) -> list[Message]:
        """The request of worker `index`."""

    def cached_blocks(self, index: int, num_blocks: int) -> int:
        """Leading history blocks that worker `index` of `num_blocks` shows untouched."""


def load_layout(name: str) -> Layout:
    """A layout by the name of its module."""
    return cast(Layout, importlib.import_module(f"{__name__}.{name}"))


def shows_nothing_later(name: str) -> bool:
    """Whether a worker is shown nothing that follows its history block."""
    return not getattr(load_layout(name), "SHOWS_LATER", False)
