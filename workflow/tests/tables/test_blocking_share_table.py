import pandas as pd
import pytest

from blockwise.config.choices import Study
from blockwise.tables.compaction import compaction_blocking_share
from blockwise.tables.inputs import TableInputs
from record_factory import compaction, loaded, record


def build(*cells):
    inputs = [loaded(cell, study=Study.BLOCKING_SHARE) for cell in cells]
    return compaction_blocking_share.build(TableInputs(inputs))


def test_the_share_is_one_of_each_session_and_then_averaged():
    twice = (compaction(stall_s=2.0), compaction(index=1, stall_s=3.0))
    long = record(session_id="s1", wall_s=100.0, compactions=(compaction(stall_s=1.0),))
    row = build(record(wall_s=10.0, compactions=twice), long).iloc[0]
    assert row.compaction_stall_mean_frac == pytest.approx((0.5 + 0.01) / 2)
    assert (row.stall_mean_s, row.wall_mean_s, row.num_compactions_mean) == (3.0, 55.0, 1.5)


def test_times_cluster_by_server_start_and_counts_by_session():
    twice = (compaction(), compaction(index=1))
    cells = [record(wall_s=5.0), record(session_id="s1", wall_s=10.0, compactions=twice)]
    row = build(*cells, record(server_start=1, wall_s=10.0)).iloc[0]
    assert row.compaction_stall_mean_frac == pytest.approx(((0.5 + 0.5) / 2 + 0.25) / 2)
    assert (row.compaction_stall_min_frac, row.compaction_stall_max_frac) == (0.25, 0.5)
    assert (row.wall_min_s, row.wall_max_s, row.wall_num_clusters) == (7.5, 10.0, 2)
    assert (row.num_compactions_min, row.num_compactions_max) == (1, 2)
    assert (row.num_timing_blocks, row.num_server_starts, row.num_compactions_num_clusters) == (
        3,
        2,
        2,
    )


def test_every_tau_and_arm_has_its_row():
    taus = [{"tau_tokens": tau} for tau in (2048, 4096)]
    cells = [record(spec=tau) for tau in taus]
    cells += [record("target_block", 512, spec=tau) for tau in taus]
    table = build(*reversed(cells))
    assert list(table.tau_tokens) == [2048, 2048, 4096, 4096]
    assert list(table.arm) == ["sequential", "target_block"] * 2


def test_invalid_cells_are_left_out_and_counted():
    row = build(record(), record(session_id="s1", wall_s=1e6, timing_valid=False)).iloc[0]
    assert (row.num_timing_blocks, row.num_invalid_cells, row.wall_mean_s) == (1, 1, 10.0)


def test_shares_of_a_natural_volume_of_random_weights_say_that_they_are_noise():
    row = build(record(spec={"volume_mode": "natural"})).iloc[0]
    assert row.compaction_stall_mean_frac == 0.25
    assert "random weights" in row.note
    assert pd.isna(build(record()).iloc[0].note)
