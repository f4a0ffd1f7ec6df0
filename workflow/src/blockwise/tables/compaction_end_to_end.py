"""`compaction_end_to_end.csv`: what an arm costs a whole session, and against sequential.

The form of the paper's Tables 7 and 8: wall time, throughput and volume by block size. They
stand apart here, each with its interval, because they mean different things: end-to-end
tokens/s rises with the decode volume by construction, and only wall time is a claim of
speed. A speed-up is formed inside one timing block, from two valid cells whose compactions
agree in number and in tokens decoded; where arms did not do the same work it is left out and
the row says why.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

from blockwise.compaction.records import CellRecord
from blockwise.config.experiments import SEQUENTIAL, Transcript
from blockwise.errors import ArtifactError
from blockwise.statistics import CONFIDENCE, MIN_CLUSTERS, Interval, mean_interval, paired_ratio
from blockwise.tables import compaction_cells, measures
from blockwise.tables.columns import Column, ColumnKind, count, frame, number, text
from blockwise.tables.load import LoadedCell, table_order
from blockwise.tables.settings import CellSettings, settings_of

STATISTICS = ("mean", "low", "high", "min", "max")
STATISTIC_MEANINGS = {
    "mean": "mean over clusters (session and seed)",
    "low": f"lower end of its {CONFIDENCE:.0%} interval, empty below {MIN_CLUSTERS} clusters",
    "high": f"upper end of its {CONFIDENCE:.0%} interval, empty below {MIN_CLUSTERS} clusters",
    "min": "smallest cluster mean",
    "max": "largest cluster mean",
}
SPEEDUP_MEANING = (
    "Wall time of sequential over this arm's, inside timing blocks, above 1 is faster; means "
    "and intervals are geometric"
)
NO_PAIR = "no timing block holds a valid cell of both arms"
UNEQUAL_VOLUME = "unequal compaction volume in every timing block"


@dataclass(frozen=True)
class Measure:
    """A quantity of one cell that is averaged over clusters."""

    name: str
    suffix: str  # its unit as the end of a column name
    unit: str
    kind: ColumnKind
    meaning: str
    of: Callable[[CellRecord], float | None]

    def column(self, statistic: str) -> str:
        """Name of the column that holds one of the `STATISTICS`."""
        return f"{self.name}_{statistic}{self.suffix}"


MEASURES = (
    Measure("wall", "_s", "s", ColumnKind.TIMED, "Wall time of a session", lambda r: r.wall_s),
    Measure(
        "ttft_after_compaction",
        "_s",
        "s",
        ColumnKind.TIMED,
        "First-token latency of the agent's next request after a compaction",
        measures.ttft_after_compaction_s,
    ),
    Measure(
        "total",
        "_tokens",
        "tokens",
        ColumnKind.SAMPLED,
        "Total tokens spent: prompt and completion of all requests, cached included",
        measures.total_tokens,
    ),
    Measure(
        "compaction_output",
        "_tokens",
        "tokens",
        ColumnKind.SAMPLED,
        "Tokens decoded by all compactions of a session, thinking included",
        measures.compaction_output_tokens,
    ),
    Measure(
        "num_compactions",
        "",
        "count",
        ColumnKind.SAMPLED,
        "Compactions a session",
        lambda record: len(record.compactions),
    ),
    Measure(
        "compaction_stall",
        "_frac",
        "1",
        ColumnKind.TIMED,
        "Share of a session's wall time that the agent waited for compaction",
        measures.compaction_stall_frac,
    ),
    Measure(
        "end_to_end",
        "_tokens_per_s",
        "tokens/s",
        ColumnKind.TIMED,
        "Completion tokens over wall time; rises with volume by construction, no claim of speed",
        measures.end_to_end_tokens_per_s,
    ),
    Measure(
        "compaction_decode",
        "_tokens_per_s",
        "tokens/s",
        ColumnKind.TIMED,
        "Compaction output tokens over the wall time of compactions",
        measures.compaction_decode_tokens_per_s,
    ),
)


def _measure_columns(measure: Measure) -> list[Column]:
    columns = [
        number(
            measure.column(statistic),
            f"{measure.meaning}: {STATISTIC_MEANINGS[statistic]}.",
            measure.kind,
            measure.unit,
        )
        for statistic in STATISTICS
    ]
    n_meaning = f"Clusters behind the {measure.column('mean')} column."
    return [*columns, count(f"{measure.name}_num_clusters", n_meaning, ColumnKind.HOST)]


COLUMNS: tuple[Column, ...] = (
    text("experiment", "Experiment that selects the cells."),
    compaction_cells.BACKBONE,
    compaction_cells.NUM_PARAMETERS,
    compaction_cells.DATASET,
    compaction_cells.CAPTION,
    *compaction_cells.ARM,
    compaction_cells.BOUNDARY,
    compaction_cells.TAU,
    compaction_cells.TRANSCRIPT,
    compaction_cells.VOLUME_MODE,
    compaction_cells.VOLUME_TOKENS,
    count("num_timing_blocks", "Timing blocks with a valid cell of this arm.", ColumnKind.HOST),
    count("num_invalid_cells", "Cells whose times do not count, left out.", ColumnKind.HOST),
    *_measure_columns(MEASURES[0]),
    *(
        number(
            f"speedup_{statistic}",
            f"{SPEEDUP_MEANING}: {STATISTIC_MEANINGS[statistic]}.",
            ColumnKind.TIMED,
            "1",
        )
        for statistic in STATISTICS
    ),
    count("speedup_num_clusters", "Clusters behind the speed-up.", ColumnKind.HOST),
    count(
        "speedup_num_timing_blocks",
        "Timing blocks behind the speed-up: valid cells of both arms, of equal volume.",
        ColumnKind.HOST,
    ),
    count(
        "num_unequal_volume_timing_blocks",
        "Timing blocks with valid cells of both arms that the speed-up leaves out, because the "
        "arms' compactions differ in number or in tokens decoded.",
        ColumnKind.HOST,
    ),
    text("speedup_omitted_reason", "Why there is no speed-up.", ColumnKind.HOST),
    *(column for measure in MEASURES[1:] for column in _measure_columns(measure)),
)


def build(cells: Sequence[LoadedCell]) -> pd.DataFrame:
    """One row an arm of an experiment, backbone and dataset; recall cells take no part.

    An arm without any valid timing cell keeps its row: the count of invalid cells and empty
    statistics.

    Raises:
        ArtifactError: a timing block holds an arm twice, or an arm mixes settings.
    """
    timed = sorted(
        (cell for cell in cells if cell.record.timing_block_id is not None), key=table_order
    )
    rows = []
    for _, group in groupby(timed, key=_comparison):
        members = list(group)
        baseline = _by_timing_block([cell for cell in members if cell.record.arm == SEQUENTIAL])
        for _, arm_cells in groupby(members, key=_arm):
            rows.append(_row(list(arm_cells), baseline))
    return frame(rows, COLUMNS)


def _comparison(cell: LoadedCell) -> tuple[str, str, str]:
    """Arms are compared inside one of these."""
    return cell.backbone, cell.dataset, cell.experiment


def _arm(cell: LoadedCell) -> tuple[str, int]:
    return cell.record.arm, cell.record.block_size_tokens or 0


def _cluster(record: CellRecord) -> str:
    """Repeats of one session and seed share a cluster: they are averaged first."""
    return f"{record.session_id} seed {record.seed}"


def _valid(cells: Sequence[LoadedCell]) -> list[CellRecord]:
    return [cell.record for cell in cells if cell.record.timing_valid]


def _by_timing_block(cells: Sequence[LoadedCell]) -> dict[str, CellRecord]:
    """The valid cell of an arm in each timing block."""
    found: dict[str, CellRecord] = {}
    for record in _valid(cells):
        timing_block_id = str(record.timing_block_id)
        if timing_block_id in found:
            raise ArtifactError(
                f"timing block {timing_block_id} holds 2 cells of arm {record.arm} "
                f"(B={record.block_size_tokens}); it must hold 1. Delete its record and rerun"
            )
        found[timing_block_id] = record
    return found


def _row(cells: Sequence[LoadedCell], baseline: dict[str, CellRecord]) -> dict[str, Any]:
    cell, settings = cells[0], _common_settings(cells)
    own = _by_timing_block(cells)
    valid = list(own.values())
    row: dict[str, Any] = {
        "experiment": cell.experiment,
        "backbone": cell.backbone,
        "num_parameters": cell.num_parameters,
        "dataset": cell.dataset,
        "caption": cell.caption,
        **compaction_cells.arm_values(cell),
        "boundary": settings.boundary,
        "tau_tokens": settings.tau_tokens,
        "transcript": settings.transcript,
        "volume_mode": settings.volume_mode,
        "volume_tokens": settings.volume_tokens,
        "num_timing_blocks": len(own),
        "num_invalid_cells": len(cells) - len(valid),
    }
    for measure in MEASURES:
        interval = _interval(measure, valid)
        for statistic, value in _statistics(interval).items():
            row[measure.column(statistic)] = value
        row[f"{measure.name}_num_clusters"] = interval.num_clusters if interval else 0
    return {**row, **_speedup(cell, settings, own, baseline)}


def _interval(measure: Measure, records: Sequence[CellRecord]) -> Interval | None:
    values = [(measure.of(record), _cluster(record)) for record in records]
    known = [(value, cluster) for value, cluster in values if value is not None]
    if not known:
        return None
    return mean_interval([value for value, _ in known], [cluster for _, cluster in known])


def _statistics(interval: Interval | None) -> dict[str, float | None]:
    if interval is None:
        return dict.fromkeys(STATISTICS)
    bounds = (interval.mean, interval.low, interval.high, interval.minimum, interval.maximum)
    return dict(zip(STATISTICS, bounds, strict=True))


def _speedup(
    cell: LoadedCell,
    settings: CellSettings,
    own: dict[str, CellRecord],
    baseline: dict[str, CellRecord],
) -> dict[str, Any]:
    shared = sorted(own.keys() & baseline.keys())
    equal = shared  # arms of natural volume differ by design; their volumes stand beside them
    if settings.volume_mode == "forced":
        equal = [name for name in shared if _volume(own[name]) == _volume(baseline[name])]
    omitted = _why_not_comparable(cell, settings)
    ratio = None
    if omitted is None:
        ratio = paired_ratio(
            {name: baseline[name].wall_s for name in equal},
            {name: own[name].wall_s for name in equal},
            {name: _cluster(own[name]) for name in equal},
        )
        if ratio is None:
            omitted = UNEQUAL_VOLUME if shared else NO_PAIR
    return {
        **{f"speedup_{name}": value for name, value in _statistics(ratio).items()},
        "speedup_num_clusters": ratio.num_clusters if ratio else 0,
        "speedup_num_timing_blocks": ratio.num_values if ratio else 0,
        "num_unequal_volume_timing_blocks": len(shared) - len(equal),
        "speedup_omitted_reason": omitted,
    }


def _volume(record: CellRecord) -> tuple[int, int]:
    """What the compactions of a cell did; arms whose volumes differ did different work."""
    return len(record.compactions), measures.compaction_output_tokens(record)


def _why_not_comparable(cell: LoadedCell, settings: CellSettings) -> str | None:
    """Arms are compared for speed only where they did the same work (METHOD, Timing)."""
    if cell.record.arm == SEQUENTIAL:
        return "the reference arm"
    if settings.transcript is Transcript.FREE:
        return "free-running sessions do different work"
    if settings.volume_mode != "forced" and cell.random_weights:
        return "random weights: only forced equal volume is compared"
    return None


def _common_settings(cells: Sequence[LoadedCell]) -> CellSettings:
    settings = settings_of(cells[0].record)
    for cell in cells[1:]:
        if settings_of(cell.record) != settings:
            raise ArtifactError(
                f"experiment {cell.experiment}, arm {cell.record.arm} "
                f"(B={cell.record.block_size_tokens}) mixes cells of different settings: "
                f"{cells[0].record.cell_key} and {cell.record.cell_key}. Rerun the batch so "
                "that it selects the cells of one configuration"
            )
    return settings
