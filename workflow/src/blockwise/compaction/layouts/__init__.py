"""Layouts: how a worker's request shows it the history block it must summarise.

A layout is one module of this package with one function

    worker_messages(history, blocks, index, prompt) -> list[Message]

that maps the conversation, its history blocks, the worker's index and the compaction prompt
to the worker's messages. Adding a layout is adding a file; nothing else names it.
"""

import importlib
from collections.abc import Callable, Sequence

from blockwise.compaction.history import History
from blockwise.compaction.partition import HistoryBlock
from blockwise.serving.renderer import Message

WorkerMessages = Callable[[History, Sequence[HistoryBlock], int, str], list[Message]]


def load_layout(name: str) -> WorkerMessages:
    """The `worker_messages` of a layout, by the name of its module."""
    module = importlib.import_module(f"{__name__}.{name}")
    layout: WorkerMessages = module.worker_messages
    return layout
