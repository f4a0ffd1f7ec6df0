"""What the tables about the volume of single compactions share.

Each of their cells is one compaction of a history of about a given length, at natural volume:
every worker stops by itself, below a cap. What such a table measures is the model's own
behaviour, so a row says where it is not: random weights never choose to stop, a cap levels what
it cuts off, and at temperature 0 a repeat only repeats.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from blockwise.compaction.records import CellRecord
from blockwise.config.backbones import Weights
from blockwise.config.choices import Study
from blockwise.errors import ArtifactError
from blockwise.tables.columns import Column, ColumnKind, count, number, text, tokens
from blockwise.tables.compaction.parts import identity, measures, natural_volume
from blockwise.tables.compaction.parts.gates import GATE, gate_of
from blockwise.tables.compaction.parts.load import table_order
from blockwise.tables.compaction.parts.summaries import Measure
from blockwise.tables.inputs import LoadedCell

NOTES_OF_WEIGHTS = {
    Weights.RANDOM: "random weights: the volume is the cap's, not the model's; not testable at "
    "this scale",
    Weights.POCKET: "pocket backbone: the length of its summaries was taught; what large models "
    "do by themselves is not testable at this scale",
}
"""METHOD.md: natural volume says something about published weights only."""

NO_TEMPERATURE = "temperature 0: repeats are identical unless the engine's batches differ"

NUM_CELLS = count("num_cells", "Compactions behind the row.")
TEMPERATURE = number("temperature", "Sampling temperature of every request.", ColumnKind.EXACT, "1")
NOTE = text(
    "note",
    "Why the numbers of the row say little or nothing; empty: they count.",
    ColumnKind.SAMPLED,
)
LABELS: tuple[Column, ...] = (
    *identity.ARM_IDENTITY,
    identity.HISTORY,
    tokens("worker_cap_tokens", "Most tokens that a worker may decode."),
    TEMPERATURE,
)
"""Which arm a row shows, at which length."""

GATED: tuple[Column, ...] = (*natural_volume.COLUMNS, GATE, NOTE)
"""What a reader must know before the numbers of a row: its last columns."""


def output_over_input_frac(record: CellRecord) -> float:
    """Tokens decoded over tokens of history replaced."""
    return measures.compaction_output_tokens(record) / input_tokens(record)


def input_tokens(record: CellRecord) -> int:
    """Realised tokens of history that the summaries replace."""
    return sum(compaction.input_tokens for compaction in record.compactions)


INPUT = Measure(
    "input",
    "_tokens",
    "tokens",
    ColumnKind.EXACT,
    "Realised tokens of history that the summaries replace",
    input_tokens,
)
OUTPUT = Measure(
    "output",
    "_tokens",
    "tokens",
    ColumnKind.SAMPLED,
    "Tokens decoded by all workers of a compaction, thinking included",
    measures.compaction_output_tokens,
)
THINKING = Measure(
    "thinking",
    "_tokens",
    "tokens",
    ColumnKind.SAMPLED,
    "Thinking tokens among them",
    lambda record: sum(compaction.thinking_tokens for compaction in record.compactions),
)
OUTPUT_OVER_INPUT = Measure(
    "output_over_input",
    "_frac",
    "1",
    ColumnKind.SAMPLED,
    "Output tokens over input tokens",
    output_over_input_frac,
)


def grouped_cells(
    cells: Iterable[LoadedCell], study: Study, *keys: Callable[[LoadedCell], Hashable]
) -> list[list[LoadedCell]]:
    """Cells of a study that agree in arm, prompt and `keys`, in table order.

    Raises:
        ArtifactError: a cell is no single compaction.
    """
    groups: dict[Hashable, list[LoadedCell]] = {}
    for cell in sorted((cell for cell in cells if cell.study is study), key=table_order):
        if len(cell.record.compactions) != 1:
            raise ArtifactError(
                f"cell {cell.record.cell_key} of {study} holds {len(cell.record.compactions)} "
                "compactions; it must hold exactly 1. Delete its record file and rerun"
            )
        identity = (
            cell.backbone,
            cell.dataset,
            cell.experiment,
            cell.prompt,
            cell.record.arm,
            cell.record.block_size_tokens,
        )
        groups.setdefault((identity, *(key(cell) for key in keys)), []).append(cell)
    return list(groups.values())


def history_tokens_of(cell: LoadedCell) -> int | None:
    """The length asked for: one of the keys of a group."""
    return cell.record.spec.history_tokens


def label_values(cell: LoadedCell) -> dict[str, Any]:
    """Values of `LABELS`."""
    settings = cell.record.spec
    return {
        **identity.arm_identity(cell),
        "history_tokens": settings.history_tokens,
        "worker_cap_tokens": settings.volume_tokens,
        "temperature": settings.request.temperature,
    }


def gated_values(
    cells: Sequence[LoadedCell], same_blocks_as: str | None, notes: Sequence[str] = ()
) -> dict[str, Any]:
    """Values of `GATED`, all cells being of one arm; `notes` are those of the table itself."""
    shares = natural_volume.column_values([cell.record for cell in cells], same_blocks_as)
    return {
        **shares,
        "gate": gate_of(natural_volume.gates_of(shares)),
        "note": "; ".join([*_notes_of(cells), *notes]) or None,
    }


def _notes_of(cells: Sequence[LoadedCell]) -> list[str]:
    """Why the volumes of these cells, all of one arm, say little about the model."""
    known = NOTES_OF_WEIGHTS.get(cells[0].weights)
    notes = [known] if known else []
    inputs = {cell.record.session_id for cell in cells}
    if cells[0].record.spec.request.temperature == 0 and len(cells) > len(inputs):
        notes.append(NO_TEMPERATURE)
    num_cut, num_workers = measures.length_finishes(cell.record for cell in cells)
    if num_cut:
        notes.append(
            f"{num_cut} of {num_workers} workers were cut off at their cap, which "
            "levels their volume"
        )
    return notes
