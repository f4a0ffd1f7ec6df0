"""Arms: what a cell compacts with, or stands beside those that compact.

An arm is `sequential`, a layout of the parallel compaction, a strategy under a budget, or a
reference, which compacts nothing.
"""

from enum import StrEnum

from blockwise.config.base import constant_of, modules_of

SEQUENTIAL = "sequential"
"""The arm that summarises the whole history in one call."""

LAYOUT_PACKAGE = "blockwise.compaction.layouts"
"""Where the layouts are; named, not imported, because a configuration loads no code."""

STRATEGY_PACKAGE = "blockwise.compaction.strategies"
"""Where the strategies are."""


class Mode(StrEnum):
    """When an engine is asked for summaries, and in how many calls."""

    SEQUENTIAL = "sequential"  # one call, when the compaction is due
    PARALLEL = "parallel"  # a call for each history block, all when the compaction is due
    EAGER = "eager"  # a call for each history block, as soon as the block is closed


class Reference(StrEnum):
    """Floors and ceilings of recall: what a question is asked on instead of the summaries."""

    CLOSED_BOOK = "closed_book"  # nothing but the question
    TRUNCATION = "truncation"  # the last tokens, as many as the compacted history holds
    FULL_HISTORY = "full_history"  # everything, where the window holds it


def is_reference(arm: str) -> bool:
    """Whether an arm compacts nothing: a floor or a ceiling of recall."""
    return arm in set(Reference)


def known_layouts() -> list[str]:
    """Names of the parallel layouts: the modules of their package."""
    return [name for name in modules_of(LAYOUT_PACKAGE) if name != SEQUENTIAL]


def eager_layouts() -> list[str]:
    """The layouts that show a worker nothing which follows its history block."""
    return [
        name
        for name in known_layouts()
        if not constant_of(f"{LAYOUT_PACKAGE}.{name}", "SHOWS_LATER", default=False)
    ]


def known_strategies() -> list[str]:
    """Names of the strategies: the modules of their package."""
    return modules_of(STRATEGY_PACKAGE)
