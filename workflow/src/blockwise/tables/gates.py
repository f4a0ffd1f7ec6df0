"""Gates: why no verdict may rest on a row of a table, in a word (METHOD, Gates)."""

from enum import StrEnum


class Gate(StrEnum):
    """What a row of a table is good for."""

    OK = "ok"
    CAPPED = "capped"  # too many natural summaries were cut off at their cap
    CANNOT_DO_TASK = "cannot_do_task"  # the model answers no better than without the history
    SAME_BLOCKS_AS = "same_blocks_as"  # another arm realised the same history blocks
    TOO_FEW_STARTS = "too_few_starts"  # times of too few server starts
