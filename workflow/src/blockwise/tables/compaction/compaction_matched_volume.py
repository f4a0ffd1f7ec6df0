"""`compaction_matched_volume.csv`: speed where sequential and parallel decode as much.

The form of the paper's Table 9, in two kinds of row. `forced`: every compaction decodes the same
number of tokens, so each arm is set against sequential as it is. `matched`: the model stops by
itself, and of each layout the one block size B is shown whose compactions decode about as much
as sequential's. A B that is chosen and shown on the same sessions looks better matched than it
is; so it is chosen on one half of the seeds and everything is shown on the other half, with the
mismatch that remains (METHOD, Volume). In ascending order the first half of the seeds chooses,
rounded down; a tie goes to the larger B, which needs fewer workers.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

from blockwise.compaction.records import CellRecord
from blockwise.config.arms import SEQUENTIAL
from blockwise.config.choices import Study
from blockwise.tables.columns import Column, ColumnKind, count, frame, number, seconds, text
from blockwise.tables.compaction.parts import identity, measures
from blockwise.tables.compaction.parts.comparison import (
    LABELS,
    NO_PAIR,
    RANDOM_WEIGHTS,
    Arm,
    Pairs,
    compared_arms,
    label_values,
    pairs_of,
    sequential_of,
    unequal_volume_column,
)
from blockwise.tables.compaction.parts.summaries import (
    COMPACTION_DECODE,
    COMPACTION_OUTPUT,
    NUM_COMPACTIONS,
    SPEEDUP,
    WALL,
    Measure,
    Ratio,
)
from blockwise.tables.inputs import TableInputs

FORCED, MATCHED = "forced", "matched"
MIN_SEEDS = 2  # one to choose on, one to report on
TOO_FEW_SEEDS = "a single seed: B is chosen on one half of the seeds and reported on the other"
NOTHING_REPORTED = "no cell of the arm on the seeds that are reported on"
NO_OUTPUT = "sequential's compactions decoded nothing to match"
MEASURES = (
    WALL,
    COMPACTION_OUTPUT,
    NUM_COMPACTIONS,
    COMPACTION_DECODE,
    Measure(
        "worker_tpot",
        "_s",
        "s",
        ColumnKind.TIMED,
        "Time per output token of the workers after their first, by the engine's clock, mean over "
        "the workers of a session",
        measures.worker_tpot_s,
    ),
)
RATIOS = (
    SPEEDUP,
    Ratio(
        "compaction_decode_ratio",
        "Compaction output tokens per second of this arm over sequential's, above 1 is faster",
        measures.compaction_decode_tokens_per_s,
        reference_over_own=False,
    ),
)
STALL_FRACS = {"stall_p50_s": 0.5, "stall_p95_s": 0.95}

COLUMNS: tuple[Column, ...] = (
    text(
        "volume_rule",
        "forced: equal decode volume by construction; matched: of each layout the B whose volume "
        "is closest to sequential's, chosen on other seeds than those reported.",
    ),
    *LABELS,
    identity.TAU,
    identity.TRANSCRIPT,
    text(
        "omitted_reason",
        "Why there is no ratio and, in a matched row, why all its values are empty.",
        ColumnKind.HOST,
    ),
    text("candidate_block_sizes", "Matched: every B of the layout, in tokens.", ColumnKind.EXACT),
    text("seeds_chosen_on", "Matched: seeds on which B was chosen.", ColumnKind.HOST),
    text("seeds_reported_on", "Matched: seeds that the row shows.", ColumnKind.HOST),
    number(
        "chosen_volume_mismatch_frac",
        "Matched: volume_mismatch_frac on the seeds on which B was chosen.",
        ColumnKind.SAMPLED,
        "1",
    ),
    number(
        "volume_mismatch_frac",
        "Compaction output of the arm over sequential's in the timing blocks compared, minus 1.",
        ColumnKind.SAMPLED,
        "1",
    ),
    unequal_volume_column(),
    *(column for measure in MEASURES for column in measure.columns()),
    *(column for ratio in RATIOS for column in ratio.columns()),
    seconds("stall_p50_s", "Median wait of the agent, over all compactions of the valid cells."),
    seconds(
        "stall_p95_s",
        "95th percentile of the same by nearest rank: below 20 compactions the maximum.",
    ),
    count("stall_num_compactions", "Compactions behind both.", ColumnKind.HOST),
)


@dataclass(frozen=True)
class _Choice:
    """What stands behind a matched row beside its cells."""

    candidates: Sequence[int]
    choosing: Sequence[int]
    reporting: Sequence[int]
    mismatch_frac: float | None = None


def build(inputs: TableInputs) -> pd.DataFrame:
    """Forced: one row an arm. Matched: sequential, and one row a layout.

    Raises:
        ArtifactError: a timing block holds an arm twice, or an arm mixes settings.
    """
    rows = []
    for arms in compared_arms(inputs.cells, Study.MATCHED_VOLUME):
        if arms[0].settings.volume_mode == "forced":
            sequential = sequential_of(arms)
            rows += [_row(FORCED, arm, pairs_of(arm, sequential), None) for arm in arms]
        else:
            rows += _matched_rows(arms)
    return frame(rows, COLUMNS)


def split_seeds(seeds: Collection[int]) -> tuple[list[int], list[int]]:
    """The seeds on which B is chosen, and those on which it is reported."""
    ordered = sorted(set(seeds))
    num_choosing = len(ordered) // 2
    return ordered[:num_choosing], ordered[num_choosing:]


def mismatch_frac(pairs: Pairs) -> float | None:
    """Compaction output of an arm over its reference's, minus 1; None: nothing to compare.

    Of each, the mean over clusters in the timing blocks that the two share.
    """
    own, reference = (
        COMPACTION_OUTPUT.values(records.values())[COMPACTION_OUTPUT.column("mean")]
        for records in (pairs.own, pairs.reference)
    )
    return own / reference - 1 if own is not None and reference else None


def _matched_rows(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """Sequential as it is on the reported seeds, then each layout at its chosen B."""
    seeds = {cell.record.seed for arm in arms for cell in arm.cells}
    choosing, reporting = split_seeds(seeds)
    sequential = sequential_of(arms)
    rows = []
    for name, members in groupby(arms, key=lambda arm: arm.name):
        candidates = list(members)
        sizes = [arm.block_size_tokens for arm in candidates if arm.block_size_tokens is not None]
        choice = _Choice(sizes, choosing, reporting)
        omitted = _why_not_matched(arms, seeds)
        if omitted is not None:
            rows.append(_empty_row(candidates, choice, omitted))
        elif name == SEQUENTIAL:
            rows.append(_reported_row(candidates, candidates[0], sequential, choice))
        else:
            rows.append(_layout_row(candidates, sequential, choice))
    return rows


def _why_not_matched(arms: Sequence[Arm], seeds: Collection[int]) -> str | None:
    if any(arm.is_noise for arm in arms):
        return RANDOM_WEIGHTS
    return TOO_FEW_SEEDS if len(seeds) < MIN_SEEDS else None


def _layout_row(
    candidates: Sequence[Arm], sequential: Arm | None, choice: _Choice
) -> dict[str, Any]:
    reference = None if sequential is None else _on_seeds(sequential, choice.choosing)
    paired = [(arm, _paired(_on_seeds(arm, choice.choosing), reference)) for arm in candidates]
    found = [
        (mismatch, arm) for arm, pairs in paired if (mismatch := mismatch_frac(pairs)) is not None
    ]
    if not found:
        omitted = paired[0][1].omitted_reason or NO_OUTPUT
        return _empty_row(candidates, choice, f"{omitted} (seeds that choose B)")
    mismatch, chosen = min(found, key=lambda one: (abs(one[0]), -(one[1].block_size_tokens or 0)))
    made = _Choice(choice.candidates, choice.choosing, choice.reporting, mismatch)
    return _reported_row(candidates, chosen, sequential, made)


def _paired(own: Arm | None, reference: Arm | None) -> Pairs:
    return Pairs.none(NO_PAIR) if own is None else pairs_of(own, reference)


def _reported_row(
    candidates: Sequence[Arm], chosen: Arm, sequential: Arm | None, choice: _Choice
) -> dict[str, Any]:
    """The chosen arm on the seeds that did not choose it."""
    reported = _on_seeds(chosen, choice.reporting)
    if reported is None:
        return _empty_row(candidates, choice, NOTHING_REPORTED)
    reference = None if sequential is None else _on_seeds(sequential, choice.reporting)
    return _row(MATCHED, reported, pairs_of(reported, reference), choice)


def _on_seeds(arm: Arm, seeds: Collection[int]) -> Arm | None:
    cells = [cell for cell in arm.cells if cell.record.seed in seeds]
    return Arm.of(cells, arm.same_blocks_as) if cells else None


def _empty_row(candidates: Sequence[Arm], choice: _Choice, omitted: str) -> dict[str, Any]:
    """A row without a chosen B: labels and the reason; no cell is behind it."""
    arm = Arm(candidates[0].cells, candidates[0].settings, {})
    num_invalid = sum(len(one.cells) - len(one.valid) for one in candidates)
    return {
        **_row(MATCHED, arm, Pairs.none(omitted), choice),
        "block_size_tokens": None,
        "num_invalid_cells": num_invalid,
    }


def _row(volume_rule: str, arm: Arm, pairs: Pairs, choice: _Choice | None) -> dict[str, Any]:
    records = list(arm.valid.values())
    row = {
        "volume_rule": volume_rule,
        **label_values(arm),
        "tau_tokens": arm.settings.tau_tokens,
        "transcript": arm.settings.transcript,
        "omitted_reason": pairs.omitted_reason,
        "candidate_block_sizes": _listed(choice.candidates) if choice else None,
        "seeds_chosen_on": _listed(choice.choosing) if choice else None,
        "seeds_reported_on": _listed(choice.reporting) if choice else None,
        "chosen_volume_mismatch_frac": choice.mismatch_frac if choice else None,
        "volume_mismatch_frac": mismatch_frac(pairs),
        "num_unequal_volume_timing_blocks": pairs.num_unequal_volume,
        **_stalls(records),
    }
    for measure in MEASURES:
        row |= measure.values(records)
    for ratio in RATIOS:
        row |= ratio.values(pairs.own, pairs.reference)
    return row


def _stalls(records: Sequence[CellRecord]) -> dict[str, Any]:
    stalls = [item.stall_s for record in records for item in record.compactions]
    return {
        **{name: measures.percentile(stalls, frac) for name, frac in STALL_FRACS.items()},
        "stall_num_compactions": len(stalls),
    }


def _listed(values: Sequence[int]) -> str | None:
    return " ".join(str(value) for value in values) or None
