"""Choices: what the keys of experiments may be set to, by the names that records use too."""

from enum import StrEnum

PROTOCOL_PACKAGE = "blockwise.compaction.protocols"
"""Where the protocols are: one module for each member of `Protocol`."""


class Study(StrEnum):
    """The tables and figures of the compaction study."""

    END_TO_END = "compaction_end_to_end"
    BLOCKING_SHARE = "compaction_blocking_share"
    MATCHED_VOLUME = "compaction_matched_volume"
    LENGTH_INVARIANCE = "compaction_length_invariance"
    STABILITY = "compaction_stability"
    VOLUME_CONTROL = "compaction_volume_control"
    LAYOUTS = "compaction_layouts"
    ACCURACY_VOLUME = "compaction_accuracy_volume"
    BLOCK_PROMPTS = "compaction_block_prompts"
    UNDER_LOAD = "compaction_under_load"
    EAGER = "compaction_eager"
    STRATEGIES = "compaction_strategies"


class Protocol(StrEnum):
    """How a cell is played."""

    IMMEDIATE = "immediate"  # a session, each question in the turn of its document: time
    DEFERRED = "deferred"  # a session, questions in branches after a closing compaction: recall
    SINGLE = "single"  # one compaction of a cached history of a given length
    SHARED = "shared"  # the same while bystanders use the engine


class Transcript(StrEnum):
    """Which assistant turns an immediate session appends to its history."""

    FIXED = "fixed"  # the recorded turn, so every arm does the same work
    FREE = "free"  # what the model said: a labelled variant, never compared for speed


class Boundary(StrEnum):
    """Where history blocks may be cut."""

    TURN = "turn"  # never inside a turn
    TOKEN = "token"  # noqa: S105  the paper's token-wise cut, at a stable character


class OpenBlock(StrEnum):
    """What becomes of the last history block, which is still open, at a compaction."""

    COMPACT = "compact"  # it is summarised with the others
    KEEP = "keep"  # it stays verbatim


class ContentType(StrEnum):
    """What a turn mostly holds; a history block has the type that most of its text has."""

    DIALOGUE = "dialogue"
    EVIDENCE = "evidence"
    TOOL_OUTPUT = "tool_output"


class VolumeMode(StrEnum):
    """Who says how long a summary is."""

    FORCED = "forced"  # the configuration, to the token
    NATURAL = "natural"  # the model, below a cap


class SummaryFault(StrEnum):
    """Why a worker's answer is no summary (blockwise.compaction.acceptance has the rules)."""

    LENGTH = "length"  # its budget of tokens ended it
    EMPTY = "empty"  # no word, thinking apart
    CONTENT_FILTER = "content_filter"
    TOOL_CALLS = "tool_calls"
    ECHO = "echo"  # it repeats what it was asked
    LOOP = "loop"  # it says one thing over and over
    REFUSAL = "refusal"  # the model says that it will not, or cannot
