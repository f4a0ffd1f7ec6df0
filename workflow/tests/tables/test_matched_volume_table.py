import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwise.config.backbones import Weights
from blockwise.config.choices import Study
from blockwise.tables.columns import csv_bytes
from blockwise.tables.compaction import compaction_matched_volume
from blockwise.tables.compaction.compaction_matched_volume import split_seeds
from blockwise.tables.inputs import TableInputs
from record_factory import compaction, loaded, record, request

NATURAL = {"volume_mode": "natural"}


def build(cells, weights=Weights.PUBLISHED):
    labels = {"study": Study.MATCHED_VOLUME, "weights": weights}
    inputs = [loaded(cell, **labels) for cell in cells]
    return compaction_matched_volume.build(TableInputs(inputs))


def cell(size, seed, output_tokens, **changes):
    """A natural cell of one compaction; sequential where it has no block size."""
    arm = "target_block" if size else "sequential"
    events = (compaction(output_tokens=output_tokens),)
    return record(arm, size, seed=seed, spec=NATURAL, compactions=events, **changes)


def two_seeds():
    """On seed 0 the volume of B=512 is nearest to sequential's; on seed 1 that of B=1024 is."""
    return [
        cell(None, 0, 1000),
        cell(512, 0, 1100),
        cell(1024, 0, 700),
        cell(None, 1, 1000, wall_s=12.0),
        cell(512, 1, 1500, wall_s=6.0),
        cell(1024, 1, 1000, wall_s=1.0),
    ]


def layout_row(table):
    rows = table[table.arm == "target_block"]
    assert len(rows) == 1
    return rows.iloc[0]


def test_a_size_is_chosen_on_one_seed_and_reported_on_the_other():
    row = layout_row(build(two_seeds()))
    assert (row.volume_rule, row.block_size_tokens) == ("matched", 512)
    assert (row.seeds_chosen_on, row.seeds_reported_on) == ("0", "1")
    assert row.candidate_block_sizes == "512 1024"
    assert row.chosen_volume_mismatch_frac == pytest.approx(0.1)
    assert row.volume_mismatch_frac == pytest.approx(0.5)
    assert (row.wall_mean_s, row.speedup_mean, row.num_timing_blocks) == (6.0, 2.0, 1)
    assert pd.isna(row.omitted_reason)


def test_natural_rows_say_how_natural_they_are():
    cells = [one.model_copy(update={"compactions": done(one, 1)}) for one in two_seeds()]
    row = layout_row(build(cells))
    assert (row.length_finish_frac, row.distinct_summaries_frac) == (0.5, 0.5)
    assert row.gate == "capped"
    cells = [one.model_copy(update={"compactions": done(one, 0)}) for one in two_seeds()]
    assert layout_row(build(cells)).gate == "same_blocks_as"  # all cut the made-up history alike
    empty = layout_row(build(two_seeds(), Weights.RANDOM))
    assert empty[["length_finish_frac", "same_blocks_as"]].isna().all()


def done(made, num_length_finishes):
    changes = {"num_length_finishes": num_length_finishes}
    return tuple(one.model_copy(update=changes) for one in made.compactions)


def test_sequential_stands_beside_it_on_the_reported_seeds():
    row = build(two_seeds()).iloc[0]
    assert (row.arm, row.wall_mean_s, row.omitted_reason) == (
        "sequential",
        12.0,
        "the reference arm",
    )
    assert pd.isna(row.volume_mismatch_frac)


def test_a_tie_goes_to_the_larger_size():
    cells = [cell(size, seed, 1000) for seed in range(2) for size in (None, 512, 1024)]
    cells[1], cells[2] = cell(512, 0, 1250), cell(1024, 0, 750)
    assert layout_row(build(cells)).block_size_tokens == 1024


def test_each_layout_has_a_size_of_its_own():
    def other(seed):
        return record(
            "independent",
            2048,
            seed=seed,
            spec=NATURAL,
            compactions=(compaction(output_tokens=10),),
        )

    table = build([*two_seeds(), other(0), other(1)])
    assert list(table.arm) == ["sequential", "independent", "target_block"]
    assert list(table.block_size_tokens[1:]) == [2048, 512]


@pytest.mark.parametrize(
    ("cells", "weights", "reason"),
    [
        ([one for one in two_seeds() if one.seed == 0], Weights.PUBLISHED, "a single seed"),
        (two_seeds(), Weights.RANDOM, "random weights"),
    ],
)
def test_a_rule_that_cannot_be_kept_leaves_rows_empty_and_says_why(cells, weights, reason):
    table = build(cells, weights)
    assert list(table.arm) == ["sequential", "target_block"]
    assert table.omitted_reason.str.startswith(reason).all()
    empty = ["block_size_tokens", "wall_mean_s", "stall_p50_s", "speedup_mean"]
    assert table[[*empty, "volume_mismatch_frac"]].isna().all(axis=None)
    assert (table.num_timing_blocks == 0).all()


def test_no_pair_on_the_choosing_seeds_is_a_reason():
    cells = [one for one in two_seeds() if one.seed == 1 or one.arm == "sequential"]
    row = layout_row(build(cells))
    assert row.omitted_reason == (
        "no timing block holds a valid cell of both arms (seeds that choose B)"
    )


def test_a_size_that_is_missing_on_the_reported_seeds_is_a_reason():
    cells = [one for one in two_seeds() if one.seed == 0 or one.block_size_tokens != 512]
    row = layout_row(build(cells))
    assert row.omitted_reason == "no cell of the arm on the seeds that are reported on"
    assert pd.isna(row.wall_mean_s)


def test_invalid_cells_neither_choose_nor_report():
    cells = two_seeds()
    cells[1] = cell(512, 0, 1100, timing_valid=False)
    row = layout_row(build(cells))
    assert row.block_size_tokens == 1024
    cells[5] = cell(1024, 1, 1000, timing_valid=False)
    row = layout_row(build(cells))
    assert (row.num_timing_blocks, row.num_invalid_cells) == (0, 1)
    assert row.omitted_reason == "no timing block holds a valid cell of both arms"


@given(st.sets(st.integers(0, 99), min_size=2))
def test_the_halves_share_no_seed_and_lose_none(seeds):
    choosing, reporting = split_seeds(seeds)
    assert set(choosing) | set(reporting) == seeds
    assert max(choosing) < min(reporting)
    assert 0 <= len(reporting) - len(choosing) <= 1


def test_forced_arms_are_set_against_sequential_as_they_are():
    faster = record("target_block", 512, wall_s=5.0, compactions=(compaction(wall_s=1.0),))
    table = build([record(), faster], weights=Weights.RANDOM)
    row = layout_row(table)
    assert list(table.volume_rule) == ["forced", "forced"]
    assert (row.speedup_mean, row.compaction_decode_ratio_mean) == (2.0, 2.0)
    assert (row.volume_mismatch_frac, row.compaction_decode_mean_tokens_per_s) == (0.0, 256.0)
    assert pd.isna(row.omitted_reason)
    assert pd.isna(row.seeds_chosen_on)


def test_forced_arms_of_unequal_volume_are_left_out():
    odd = record("target_block", 512, compactions=(compaction(output_tokens=255),))
    row = layout_row(build([record(), odd]))
    assert row.omitted_reason == "unequal compaction volume in every timing block"
    assert row.num_unequal_volume_timing_blocks == 1


def test_time_per_output_token_counts_from_the_first_token():
    requests = (
        request("worker", completion_tokens=11, decode_s=1.0),
        request("worker", completion_tokens=21, decode_s=1.0, worker_index=1),
        request("worker", completion_tokens=1, decode_s=9.0, worker_index=2),
        request("worker", completion_tokens=21, decode_s=None, worker_index=3),
        request(completion_tokens=2, decode_s=7.0),
    )
    row = build([record(requests=requests)]).iloc[0]
    assert row.worker_tpot_mean_s == pytest.approx((0.1 + 0.05) / 2)
    unknown = record(requests=(request("worker", decode_s=None),))
    assert build([unknown]).iloc[0].worker_tpot_num_clusters == 0


@pytest.mark.parametrize(("num_stalls", "p50", "p95"), [(1, 1, 1), (10, 5, 10), (40, 20, 38)])
def test_stalls_are_percentiles_over_compactions_by_nearest_rank(num_stalls, p50, p95):
    events = tuple(compaction(index=i, stall_s=i + 1.0) for i in range(num_stalls))
    row = build([record(compactions=events)]).iloc[0]
    assert (row.stall_p50_s, row.stall_p95_s, row.stall_num_compactions) == (p50, p95, num_stalls)


def test_the_order_of_the_cells_changes_no_byte():
    cells = [*two_seeds(), record(seed=2), record("target_block", 512, seed=2)]
    natural, forced = cells[:6], cells[6:]
    expected = [csv_bytes(build(natural)), csv_bytes(build(forced))]
    assert [csv_bytes(build(natural[::-1])), csv_bytes(build(forced[::-1]))] == expected
