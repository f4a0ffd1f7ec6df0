import math
from statistics import fmean

import pandas as pd
import pytest

from blockwise.config.backbones import Weights
from blockwise.config.choices import Study
from blockwise.errors import ArtifactError
from blockwise.statistics import mean_interval
from blockwise.tables.compaction import compaction_end_to_end
from blockwise.tables.inputs import TableInputs
from record_factory import compaction, comparison, loaded, record


def build(cells):
    return compaction_end_to_end.build(TableInputs(cells))


def row_of(table, arm="target_block", block_size_tokens=512):
    rows = table[(table.arm == arm)]
    if arm != "sequential":
        rows = rows[rows.block_size_tokens == block_size_tokens]
    assert len(rows) == 1
    return rows.iloc[0]


def test_eight_sessions_on_one_server_start_are_one_value():
    row = row_of(build(comparison(num_sessions=8)), "sequential")
    assert row.wall_min_s == row.wall_mean_s == row.wall_max_s == pytest.approx(13.5)
    assert pd.isna(row.wall_low_s)
    assert (row.num_timing_blocks, row.num_server_starts, row.wall_num_clusters) == (8, 1, 1)
    assert row.gate == "too_few_starts"
    assert row.total_num_clusters == 8  # tokens differ from session to session


def test_five_server_starts_give_a_range_and_no_interval():
    row = row_of(build(comparison(num_sessions=3, num_server_starts=5)), "sequential")
    assert row.wall_mean_s == pytest.approx(11.0 * 1.04)
    assert (row.wall_min_s, row.wall_max_s) == (pytest.approx(11.0), pytest.approx(11.88))
    assert pd.isna(row.wall_low_s)
    assert (row.num_timing_blocks, row.wall_num_clusters) == (15, 5)
    assert (row.num_server_starts, row.gate) == (5, "too_few_starts")


def test_six_server_starts_give_an_interval_over_starts():
    cells = comparison(num_sessions=2, num_server_starts=6)
    parallel = [one for one in cells if one.record.block_size_tokens == 512]
    slower = [
        loaded(one.record.model_copy(update={"wall_s": one.record.wall_s * (1 + 0.1 * (n % 3))}))
        for n, one in enumerate(parallel)
    ]
    row = row_of(build([one for one in cells if one not in parallel] + slower))
    by_start = [
        [math.log(10 / 5.5 / (1 + 0.1 * (n % 3))) for n in (2 * start, 2 * start + 1)]
        for start in range(6)
    ]
    expected = mean_interval([*map(fmean, by_start)], [*map(str, range(6))])
    assert row.speedup_mean == pytest.approx(math.exp(expected.mean))
    assert row.speedup_low == pytest.approx(math.exp(expected.low))
    assert row.speedup_high == pytest.approx(math.exp(expected.high))
    assert row.wall_low_s < row.wall_mean_s < row.wall_high_s
    assert (row.num_timing_blocks, row.speedup_num_timing_blocks) == (12, 12)
    assert (row.num_server_starts, row.speedup_num_clusters, row.gate) == (6, 6, "ok")


def test_an_arm_with_the_history_blocks_of_a_smaller_size_is_that_arm():
    alike = (compaction(block_tokens=(512, 488)),)
    cells = [
        loaded(one.record.model_copy(update={"compactions": alike}))
        if one.record.block_size_tokens
        else one
        for one in comparison(num_sessions=1, num_server_starts=6)
    ]
    table = build(cells)
    assert (row_of(table).gate, row_of(table, block_size_tokens=1024).gate) == (
        "ok",
        "same_blocks_as",
    )
    assert row_of(table, block_size_tokens=1024).same_blocks_as == "target_block B=512"
    assert table.length_finish_frac.isna().all()  # forced volume ends at its length


def test_a_server_start_without_a_valid_cell_counts_for_nothing():
    cells = comparison(num_sessions=1, num_server_starts=6)
    spoiled = [
        loaded(one.record.model_copy(update={"timing_valid": False}))
        if one.record.server_start == 5 and one.record.arm == "sequential"
        else one
        for one in cells
    ]
    table = build(spoiled)
    sequential, parallel = row_of(table, "sequential"), row_of(table)
    assert (sequential.num_server_starts, sequential.gate) == (5, "too_few_starts")
    assert (parallel.num_server_starts, parallel.gate) == (6, "ok")
    assert parallel.speedup_num_clusters == 5
    assert pd.isna(parallel.speedup_low)


def test_speedup_is_formed_inside_timing_blocks():
    row = row_of(build(comparison(num_sessions=3)))
    # Sessions differ by 20%, but every timing block holds the same ratio 10 / 5.5.
    for name in ("speedup_mean", "speedup_min", "speedup_max"):
        assert row[name] == pytest.approx(10 / 5.5)
    assert pd.isna(row.speedup_omitted_reason)


def test_the_share_of_sequential_stands_beside_the_speedup():
    stall = compaction(stall_s=3.0)
    table = build(
        [
            loaded(record(wall_s=12.0, compactions=(stall,))),
            loaded(record("target_block", 512, wall_s=8.0)),
        ]
    )
    sequential, parallel = table.itertuples()
    assert parallel.sequential_stall_mean_frac == 0.25
    assert pd.isna(sequential.sequential_stall_mean_frac)
    assert parallel.answer_tokens == 16


def test_sequential_is_the_reference():
    row = row_of(build(comparison()), "sequential")
    assert pd.isna(row.speedup_mean)
    assert row.speedup_omitted_reason == "the reference arm"


def test_repeats_of_a_session_are_one_cluster():
    cells = [loaded(record(repeat=repeat, wall_s=10.0 + repeat)) for repeat in range(8)]
    row = row_of(build(cells), "sequential")
    assert (row.num_timing_blocks, row.wall_num_clusters) == (8, 1)
    assert pd.isna(row.wall_low_s)
    assert row.wall_min_s == row.wall_max_s == 13.5


def test_invalid_cells_are_left_out_and_counted():
    cells = comparison(num_sessions=3)
    spoiled = record("target_block", 512, session_id="s0", wall_s=1e6, timing_valid=False)
    cells[1] = loaded(spoiled)
    row = row_of(build(cells))
    assert (row.num_timing_blocks, row.num_invalid_cells) == (2, 1)
    assert row.wall_max_s < 1e3
    assert row.speedup_num_timing_blocks == 2


def test_an_invalid_sequential_cell_takes_its_timing_block_out_of_the_speedup():
    cells = comparison(num_sessions=3)
    cells[0] = loaded(record(session_id="s0", timing_valid=False))
    row = row_of(build(cells))
    assert (row.num_timing_blocks, row.speedup_num_timing_blocks) == (3, 2)


def test_an_arm_without_a_valid_cell_keeps_its_row():
    cells = [loaded(record(timing_valid=False))]
    row = row_of(build(cells), "sequential")
    assert (row.num_timing_blocks, row.num_invalid_cells, row.wall_num_clusters) == (0, 1, 0)
    assert pd.isna(row.wall_mean_s)


def test_recall_cells_and_other_studies_take_no_part():
    recall = loaded(record(spec={"protocol": "deferred"}))
    assert build([recall, loaded(study=Study.MATCHED_VOLUME)]).empty


def test_arms_are_compared_at_one_tau_and_prompt_only():
    low = comparison(1, spec={"tau_tokens": 2048})
    high = [cell for cell in comparison(1) if cell.record.arm == "sequential"]
    brief = comparison(1, spec={"tau_tokens": 2048, "prompt": "as text"}, prompt="brief")
    table = build([*high, *brief, *low])
    assert list(table.tau_tokens) == [2048] * 6 + [4096]
    assert list(table.prompt) == ["brief"] * 3 + ["detailed"] * 4
    assert table.speedup_num_timing_blocks.sum() == 4


def test_backbones_are_never_compared_with_each_other():
    cells = [*comparison(2, backbone="a"), *comparison(2, backbone="b")]
    no_baseline = [c for c in cells if c.backbone == "a" or c.record.arm != "sequential"]
    table = build(no_baseline)
    row = row_of(table[table.backbone == "b"])
    assert row.speedup_omitted_reason == "no timing block holds a valid cell of both arms"


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"transcript": "free"}, "free-running sessions do different work"),
        ({"volume_mode": "natural"}, "random weights: only forced equal volume is compared"),
    ],
)
def test_unequal_work_is_not_compared(spec, reason):
    cells = [record(spec=spec), record("target_block", 512, spec=spec)]
    row = row_of(build([loaded(cell, caption="") for cell in cells]))
    assert pd.isna(row.speedup_mean)
    assert row.speedup_omitted_reason == reason
    assert row.wall_mean_s == 10.0
    assert pd.isna(row.note) == ("volume_mode" not in spec)


def test_trained_models_may_be_compared_at_natural_volume():
    natural = {"volume_mode": "natural"}
    cells = [record(spec=natural), record("target_block", 512, spec=natural, wall_s=5.0)]
    # Whatever the caption says: the backbone's own flag decides.
    row = row_of(build([loaded(cell, weights=Weights.PUBLISHED) for cell in cells]))
    assert row.speedup_mean == pytest.approx(2.0)


UNEQUAL = [
    (compaction(output_tokens=255),),
    (compaction(output_tokens=128), compaction(index=1, output_tokens=128)),  # same total
    (),
]


@pytest.mark.parametrize("events", UNEQUAL)
def test_a_timing_block_of_unequal_volume_is_left_out_of_the_speedup(events):
    cells = comparison(num_sessions=3)
    odd = record("target_block", 512, session_id="s0", wall_s=0.001, compactions=events)
    cells[1] = loaded(odd)
    row = row_of(build(cells))
    assert row.speedup_max == pytest.approx(10 / 5.5)
    assert (row.num_timing_blocks, row.speedup_num_timing_blocks) == (3, 2)
    assert row.num_unequal_volume_timing_blocks == 1
    assert row_of(build(cells), "sequential").num_unequal_volume_timing_blocks == 0


def test_unequal_volume_everywhere_is_the_reason_for_no_speedup():
    cells = [loaded(), loaded(record("target_block", 512, compactions=UNEQUAL[0]))]
    row = row_of(build(cells))
    assert pd.isna(row.speedup_mean)
    assert row.speedup_omitted_reason == "unequal compaction volume in every timing block"
    assert (row.speedup_num_timing_blocks, row.num_unequal_volume_timing_blocks) == (0, 1)


def test_latency_rate_and_volume():
    events = (compaction(ttft_after_s=0.25), compaction(index=1, ttft_after_s=None, wall_s=6.0))
    row = row_of(build([loaded(record(compactions=events))]), "sequential")
    assert row.ttft_after_compaction_mean_s == 0.25
    assert row.compaction_output_mean_tokens == 512
    assert row.compaction_decode_mean_tokens_per_s == 64.0
    assert row.num_compactions_mean == 2
    assert row.end_to_end_mean_tokens_per_s == pytest.approx(27.2)
    assert row.total_mean_tokens == 3272


def test_one_arm_twice_in_a_timing_block_is_refused():
    cells = [loaded(), loaded(record(cell_key="another"))]
    with pytest.raises(ArtifactError, match="holds 2 cells"):
        build(cells)


def test_mixed_settings_are_refused():
    cells = [loaded(), loaded(record(session_id="s1", spec={"volume_tokens": 1}))]
    with pytest.raises(ArtifactError, match="mixes cells of different settings"):
        build(cells)


def test_every_mean_has_an_interval_a_range_and_an_n_beside_it():
    columns = set(build(comparison()).columns)
    means = [name for name in columns if "_mean" in name]
    assert len(means) == 10
    for name in means:
        measure, suffix = name.split("_mean")
        for statistic in ("low", "high", "min", "max"):
            assert f"{measure}_{statistic}{suffix}" in columns
        assert f"{measure}_num_clusters" in columns
