"""Whose cells a row of a table shows: the columns that tables share, and their values."""

from typing import Any

from blockwise.config.arms import known_layouts
from blockwise.tables.columns import Column, ColumnKind, count, number, text, tokens
from blockwise.tables.inputs import LoadedCell

BACKBONE = text("backbone", "Name of the backbone in the configuration.")
DATASET = text("dataset", "Name of the dataset in the configuration.")
CELL_KEY = text("cell_key", "Content key of the cell: everything that can change its record.")
TIMING_BLOCK = text(
    "timing_block_id",
    "Timing block: all arms of one session and seed on one server start; times are compared "
    "inside one only. Empty for a recall cell.",
)
NUM_PARAMETERS = number(
    "num_parameters", "Total parameters of the backbone.", ColumnKind.EXACT, "parameters"
)
CAPTION = text("caption", "What every figure of this backbone must say, e.g. random weights.")
FORMAT = text("format", "Official schema of the dataset: hotpotqa or locomo.")
CELL_IDENTITY: tuple[Column, ...] = (BACKBONE, DATASET, CELL_KEY, TIMING_BLOCK)
BOUNDARY = text("boundary", "Where history blocks may be cut: turn or token.")
TAU = tokens(
    "tau_tokens", "Trigger threshold of the rendered next request; empty: no session is compacted."
)
HISTORY = tokens(
    "history_tokens", "Length asked for of the history that is compacted; empty for a session."
)
PROMPT = text(
    "prompt", "Name of the compaction prompt, or `by content type` where each type has its own."
)
TRANSCRIPT = text(
    "transcript",
    "fixed: every arm replays the same answers; free: the model's own; empty: no answer enters a "
    "history.",
)
VOLUME_MODE = text(
    "volume_mode", "forced: a fixed decode volume; natural: workers stop by themselves."
)
VOLUME_TOKENS = tokens(
    "volume_tokens",
    "Forced: decode volume V of one compaction, in compaction_eager of each worker; natural: cap "
    "of each worker.",
)
ARM: tuple[Column, ...] = (
    text(
        "arm",
        "sequential, the layout of the parallel compaction, a strategy under a budget, or "
        "closed_book or full_history, which compact nothing.",
    ),
    text("layout", "How a worker's request shows its history block; empty for other arms."),
    tokens("block_size_tokens", "Configured history block size B; empty for other arms."),
)
SCOPE: tuple[Column, ...] = (
    text("experiment", "Experiment that selects the cells."),
    BACKBONE,
    NUM_PARAMETERS,
    DATASET,
)
"""Whose cells a row sums up: the first columns of every study's table."""
ARM_IDENTITY: tuple[Column, ...] = (*SCOPE, CAPTION, PROMPT, *ARM, BOUNDARY)
"""Which arm of them a row of a timing or volume table shows."""


DISPATCH: tuple[Column, ...] = (
    text("mode", "sequential, parallel or eager compaction; empty: none."),
    text(
        "open_block",
        "What becomes of the last history block, which is open: compact (it is summarised) or keep "
        "(it stays verbatim).",
    ),
    count(
        "max_background_workers",
        "Most workers of an eager arm at once before its compaction is due; empty: all.",
    ),
    count(
        "worker_priority",
        "Priority of the workers' requests; a lower one is served first, and all others have 0.",
        unit="",
    ),
    number(
        "tool_wait_s",
        "Wait between an answer and the next document, in every arm.",
        ColumnKind.EXACT,
        "s",
    ),
)
"""When and how the workers of an arm are sent."""


def cell_identity(cell: LoadedCell) -> dict[str, Any]:
    """Values of `CELL_IDENTITY`, for tables that are joined to `compaction_cells`."""
    return {
        "backbone": cell.backbone,
        "dataset": cell.dataset,
        "cell_key": cell.record.cell_key,
        "timing_block_id": cell.record.timing_block_id,
    }


def arm_values(cell: LoadedCell) -> dict[str, Any]:
    """Values of `ARM`."""
    layout = cell.record.spec.layout
    return {
        "arm": cell.record.arm,
        "layout": layout if layout in known_layouts() else None,
        "block_size_tokens": cell.record.block_size_tokens,
    }


def arm_identity(cell: LoadedCell) -> dict[str, Any]:
    """Values of `ARM_IDENTITY`, for a row of cells that all agree in them."""
    return {
        "experiment": cell.experiment,
        "backbone": cell.backbone,
        "num_parameters": cell.num_parameters,
        "dataset": cell.dataset,
        "caption": cell.caption,
        "prompt": cell.prompt,
        **arm_values(cell),
        "boundary": cell.record.spec.boundary,
    }


def dispatch_values(cell: LoadedCell) -> dict[str, Any]:
    """Values of `DISPATCH`, for a row of cells that all agree in them."""
    settings = cell.record.spec
    mode = settings.mode
    return {
        "mode": None if mode is None else mode.value,
        "open_block": settings.open_block.value if mode else None,
        "max_background_workers": settings.max_background_workers,
        "worker_priority": settings.worker_priority,
        "tool_wait_s": settings.tool_wait_s,
    }
