"""`compaction_stability.csv`: how much the summaries of one input differ from run to run.

The form of the paper's Table 5: the coefficient of variation of the output length, and the mean
cosine of two summaries. Every input has a row of its own, because repeats of one input and
different inputs are different kinds of spread. A cosine depends on its embedder, so the row
names it; a TF-IDF cosine is never compared with a paper's embedding cosine.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import pandas as pd

from blockwise.compaction.similarity import Similarities, SummaryGroup, summary_of
from blockwise.config.choices import Study
from blockwise.errors import ArtifactError
from blockwise.statistics import (
    CONFIDENCE,
    MIN_REPEATS,
    PROVEN_CV,
    PROVEN_SIMILARITIES,
    cv_interval,
    pairwise_mean_interval,
)
from blockwise.tables.columns import Column, ColumnKind, count, frame, number, text, tokens
from blockwise.tables.compaction.parts import measures
from blockwise.tables.compaction.parts.natural_volume import same_blocks
from blockwise.tables.compaction.parts.single_compactions import (
    GATED,
    LABELS,
    gated_values,
    grouped_cells,
    history_tokens_of,
    input_tokens,
    label_values,
)
from blockwise.tables.inputs import LoadedCell, TableInputs

SPREAD_BOUND = (
    f"end of its {CONFIDENCE:.0%} interval over repeats, empty below {MIN_REPEATS} repeats, where "
    "all or all but one agree; see the note"
)
CV_MEANING = "Coefficient of variation of output tokens over repeats"
COSINE_MEANING = "Cosine of two different repeats' summaries by this embedder"
VARIATION = ("output_cv", "output_cv_low", "output_cv_high")
COSINES = ("cosine_mean", "cosine_low", "cosine_high", "cosine_min", "cosine_max")
NOT_COMPARED = "no similarity was measured"
HEAVY_TAIL = (
    f"output_cv above {PROVEN_CV}: no upper bound, so few repeats do not show how heavy the tail is"
)
NOT_PROVEN = "cosine_mean outside {} to {}: no interval, its coverage is not proven there".format(
    *PROVEN_SIMILARITIES
)


def _number(name: str, meaning: str, unit: str = "1") -> Column:
    return number(name, meaning, ColumnKind.SAMPLED, unit)


COLUMNS: tuple[Column, ...] = (
    *LABELS,
    text("session_id", "Session whose history is compacted: the input."),
    count("seed", "Seed that the repeats vary.", unit=""),
    tokens("input_tokens", "Realised tokens of history that the summaries replace."),
    count("num_repeats", "Compactions of this input, each with its own sampling seed."),
    _number("output_mean_tokens", "Tokens decoded, thinking included: mean.", "tokens"),
    _number("output_min_tokens", "Tokens decoded: fewest of a repeat.", "tokens"),
    _number("output_max_tokens", "Tokens decoded: most of a repeat.", "tokens"),
    _number("thinking_mean_tokens", "Thinking tokens among them: mean.", "tokens"),
    _number("output_cv", f"{CV_MEANING}; empty for one repeat."),
    _number("output_cv_low", f"{CV_MEANING}: lower {SPREAD_BOUND}."),
    _number("output_cv_high", f"{CV_MEANING}: upper {SPREAD_BOUND}, and where there is no bound."),
    _number("cosine_mean", f"{COSINE_MEANING}: mean over pairs; empty below two summaries."),
    _number("cosine_low", f"{COSINE_MEANING}: lower {SPREAD_BOUND}, and where there is no bound."),
    _number("cosine_high", f"{COSINE_MEANING}: upper {SPREAD_BOUND}."),
    _number("cosine_min", f"{COSINE_MEANING}: least alike pair."),
    _number("cosine_max", f"{COSINE_MEANING}: most alike pair."),
    count(
        "cosine_num_repeats",
        "Repeats behind the cosine columns: those whose summary holds a word.",
        ColumnKind.SAMPLED,
    ),
    text("embedder", "What makes vectors of summaries; cosines of two embedders never compare."),
    _number(
        "identical_summaries_frac",
        "Share of repeats whose summary is, to the letter, that of another repeat; empty for one.",
    ),
    *GATED,
)


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row an input and arm of an experiment, backbone, dataset, prompt and length.

    Raises:
        ArtifactError: a cell is no single compaction, or its similarities are of other repeats.
    """
    groups = grouped_cells(
        inputs.cells,
        Study.STABILITY,
        history_tokens_of,
        lambda cell: (cell.record.session_id, cell.record.seed),
    )
    twins = same_blocks(groups)
    return frame(
        [_row(cells, twin, inputs.similarities) for cells, twin in zip(groups, twins, strict=True)],
        COLUMNS,
    )


def _row(
    cells: Sequence[LoadedCell], same_blocks_as: str | None, similarities: Iterable[Similarities]
) -> dict[str, Any]:
    record = cells[0].record
    compactions = [compaction for cell in cells for compaction in cell.record.compactions]
    volumes = [compaction.output_tokens for compaction in compactions]
    variation, variation_notes = _variation(volumes)
    cosines, cosine_notes = _cosines(cells, similarities)
    return {
        **label_values(cells[0]),
        "session_id": record.session_id,
        "seed": record.seed,
        "input_tokens": input_tokens(record),
        "num_repeats": len(cells),
        "output_mean_tokens": measures.mean_of(volumes),
        "output_min_tokens": min(volumes),
        "output_max_tokens": max(volumes),
        "thinking_mean_tokens": measures.mean_of(
            compaction.thinking_tokens for compaction in compactions
        ),
        **variation,
        **cosines,
        "identical_summaries_frac": _identical_frac([summary_of(cell.record) for cell in cells]),
        **gated_values(cells, same_blocks_as, [*variation_notes, *cosine_notes]),
    }


def _variation(volumes: Sequence[int]) -> tuple[dict[str, float | None], list[str]]:
    """Values of the CV columns, and what to beware of."""
    if len(volumes) < 2 or not any(volumes):
        return dict.fromkeys(VARIATION), []
    interval = cv_interval(volumes)
    values = dict(zip(VARIATION, (interval.value, interval.low, interval.high), strict=True))
    is_open = interval.low is not None and interval.value > PROVEN_CV
    return values, [HEAVY_TAIL] if is_open else []


def _identical_frac(summaries: Sequence[str]) -> float | None:
    if len(summaries) < 2:
        return None
    return sum(num for num in Counter(summaries).values() if num > 1) / len(summaries)


def _cosines(
    cells: Sequence[LoadedCell], similarities: Iterable[Similarities]
) -> tuple[dict[str, Any], list[str]]:
    """Values of the cosine columns, and why some are missing."""
    embedder, group = _group_of(cells, similarities)
    reasons = group.undefined_reasons if group else ()
    known = [index for index, reason in enumerate(reasons) if reason is None]
    values: dict[str, Any] = {
        **dict.fromkeys(COSINES),
        "cosine_num_repeats": len(known),
        "embedder": embedder,
    }
    if group is None:
        return values, [NOT_COMPARED]
    notes = []
    if len(known) > 1:
        # A repeat without a vector has no cosine with any other.
        matrix = [[one for one in group.cosines[row] if one is not None] for row in known]
        pairs = [matrix[one][other] for one, other in combinations(range(len(known)), 2)]
        interval = pairwise_mean_interval(matrix)
        bounds = (interval.value, interval.low, interval.high, min(pairs), max(pairs))
        values |= dict(zip(COSINES, bounds, strict=True))
        least, most = PROVEN_SIMILARITIES
        if len(known) >= MIN_REPEATS and not least <= interval.value <= most:
            notes.append(NOT_PROVEN)
    missing = Counter(reason for reason in reasons if reason is not None)
    return values, [
        *notes,
        *(
            f"{num} of {len(cells)} repeats have no cosine: {reason}"
            for reason, num in sorted(missing.items())
        ),
    ]


def _group_of(
    cells: Sequence[LoadedCell], similarities: Iterable[Similarities]
) -> tuple[str | None, SummaryGroup | None]:
    """The embedder that compared the summaries of these repeats, and their cosines."""
    cell_keys = {cell.record.cell_key for cell in cells}
    for compared in similarities:
        if (compared.backbone, compared.dataset) != (cells[0].backbone, cells[0].dataset):
            continue
        for group in compared.groups:
            if cell_keys == set(group.cell_keys):
                return compared.embedder, group
            if cell_keys & set(group.cell_keys):
                raise ArtifactError(
                    f"the similarities of {compared.backbone} on {compared.dataset} compare "
                    f"{len(group.cell_keys)} repeats of an input that has {len(cells)} "
                    f"(cell {group.cell_keys[0]}); delete that file and rerun"
                )
    return None, None
