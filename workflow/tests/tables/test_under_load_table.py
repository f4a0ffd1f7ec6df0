"""Bystanders of a compaction: which requests a latency pools, and when it is given at all."""

import pandas as pd
import pytest

from blockwise.config.choices import Study
from blockwise.tables.compaction.compaction_under_load import build
from blockwise.tables.inputs import TableInputs
from record_factory import compaction, loaded, record, request


def bystander(during=False, **changes):
    place = {"compaction_index": 0 if during else None, "worker_index": 0}
    return request("bystander", **{"completion_tokens": 9, **place, **changes})


def cell(requests=(), arm="target_block", size=512, compacted=None, spec=None, **changes):
    """One compaction of 2 s that starts at 10 s and decodes 256 tokens."""
    workers = (request("worker", start_s=10.0), request("worker", start_s=10.5, worker_index=1))
    told = {"protocol": "shared", **(spec or {})}
    return loaded(
        record(
            arm,
            size,
            requests=(*workers, *requests),
            compactions=(compacted or compaction(closing=True),),
            spec=told,
            **changes,
        ),
        study=Study.UNDER_LOAD,
        experiment="under_load",
    )


def table_of(*cells):
    return build(TableInputs(cells=cells))


def row_of(table, phase="during"):
    rows = table[table.phase == phase]
    assert len(rows) == 1
    return rows.iloc[0]


def test_phases_are_apart_and_the_compaction_belongs_to_one():
    requests = [bystander(ttft_s=0.1), bystander(during=True, ttft_s=0.5, start_s=10.0)]
    table = table_of(cell(requests, num_preemptions=3))
    assert list(table.phase) == ["alone", "during"]
    alone, during = row_of(table, "alone"), row_of(table)
    assert (alone.ttft_p50_s, during.ttft_p50_s) == (0.1, 0.5)
    assert (during.compaction_wall_mean_s, during.num_preemptions) == (2.0, 3)
    assert during.compaction_output_median_tokens == 256
    assert alone[["compaction_wall_mean_s", "goodput_mean_tokens_per_s"]].isna().all()
    assert pd.isna(alone.num_preemptions)


@pytest.mark.parametrize("num_requests", [1, 19, 20, 99, 100])
def test_a_percentile_that_would_be_the_maximum_is_empty(num_requests):
    requests = [bystander(ttft_s=(number + 1) / 8) for number in range(num_requests)]
    row = row_of(table_of(cell(requests)), "alone")
    assert pd.isna(row.ttft_p95_s) == (num_requests < 20)
    assert pd.isna(row.ttft_p99_s) == (num_requests < 100)
    assert (row.ttft_max_s, row.ttft_num_requests) == (num_requests / 8, num_requests)
    for name in ("ttft_p95_s", "ttft_p99_s"):
        assert pd.isna(row[name]) or row[name] < row.ttft_max_s


def test_inter_token_latency_is_the_mean_gap_inside_a_request():
    requests = [
        bystander(decode_s=0.8),
        bystander(decode_s=1.6),
        bystander(decode_s=None),
        bystander(decode_s=0.5, completion_tokens=1),
    ]
    row = row_of(table_of(cell(requests)), "alone")
    assert (row.itl_p50_s, row.itl_max_s, row.itl_num_requests) == (0.1, 0.2, 2)
    assert row.ttft_num_requests == 4


def test_cached_tokens_that_bystanders_lost_are_against_their_own_last_request():
    requests = [
        bystander(cached_tokens=384),
        bystander(during=True, cached_tokens=384),
        bystander(during=True, cached_tokens=128),
    ]
    row = row_of(table_of(cell(requests)))
    assert row.lost_cached_mean_tokens == 128
    assert pd.isna(row_of(table_of(cell(requests)), "alone").lost_cached_mean_tokens)


def test_arms_of_other_priority_and_in_the_background_are_rows_of_their_own():
    cells = [
        cell(spec={"worker_priority": 5}),
        cell(
            spec={"is_eager": True, "max_background_workers": 1}, compacted=compaction(stall_s=0.5)
        ),
        cell(),
    ]
    during = table_of(*cells).query("phase == 'during'")
    assert list(during["worker_priority"]) == [0, 5, 0]
    assert list(during["mode"]) == ["parallel", "parallel", "eager"]
    assert list(during["stall_mean_s"]) == [2.5, 2.5, 0.5]


def test_a_priority_is_held_against_the_same_arm_without_one():
    """Inside timing blocks, over server starts; and only while the compaction runs."""
    cells = [
        cell(
            [bystander(ttft_s=9.0), bystander(during=True, ttft_s=seconds * (1 + start))],
            spec={"worker_priority": priority},
            server_start=start,
        )
        for start in range(6)
        for priority, seconds in ((0, 2.0), (1, 0.5))
    ]
    table = table_of(*cells)
    during = table.query("phase == 'during'").set_index("worker_priority")
    assert during.ttft_over_plain_mean[1] == 0.25
    assert (during.ttft_over_plain_low[1], during.ttft_over_plain_num_clusters[1]) == (0.25, 6)
    assert pd.isna(during.ttft_over_plain_mean[0])
    assert table.query("phase == 'alone'").ttft_over_plain_mean.isna().all()


def test_a_queue_that_the_engine_does_not_report_is_unknown():
    row = row_of(table_of(cell([bystander(queue_s=None)])), "alone")
    assert row.queue_num_requests == 0
    assert pd.isna(row.queue_p50_s)
    assert pd.isna(row.queue_max_s)


def test_requests_of_all_valid_cells_are_pooled_and_invalid_cells_counted():
    cells = [
        cell([bystander(ttft_s=0.25)], session_id="a"),
        cell([bystander(ttft_s=0.75)], server_start=1, compacted=compaction(wall_s=4.0)),
        cell([bystander(ttft_s=99.0)], session_id="c", timing_valid=False),
    ]
    table = table_of(*cells)
    alone, during = row_of(table, "alone"), row_of(table)
    assert (alone.ttft_num_requests, alone.ttft_max_s) == (2, 0.75)
    assert (during.num_timing_blocks, during.num_invalid_cells) == (2, 1)
    assert (during.compaction_wall_min_s, during.compaction_wall_max_s) == (2.0, 4.0)
    assert during.compaction_wall_mean_s == 3.0
    assert (during.num_server_starts, during.gate) == (2, "too_few_starts")


def test_goodput_counts_what_ended_inside_the_compaction():
    requests = [
        bystander(start_s=9.0, wall_s=0.5),  # ended before it
        bystander(start_s=9.75, wall_s=0.5),  # began before it
        bystander(during=True, start_s=11.0, wall_s=1.0),
        bystander(during=True, start_s=11.5, wall_s=1.0),  # ended after it
    ]
    row = row_of(table_of(cell(requests)))
    assert row.goodput_mean_tokens_per_s == (256 + 2 * 9) / 2.0


def test_an_unknown_number_of_preemptions_stays_unknown():
    cells = [cell(session_id="a"), cell(session_id="b", num_preemptions=None)]
    assert pd.isna(row_of(table_of(*cells)).num_preemptions)


def test_arms_loads_caps_and_realised_history_blocks_have_rows_of_their_own():
    three = compaction(num_blocks=3, block_tokens=(400, 300, 300))
    cells = [
        cell(arm="sequential", size=None, compacted=compaction(num_blocks=1)),
        cell(),
        cell(session_id="s1", compacted=three),
        cell(spec={"max_concurrent_workers": 1}),
        cell(spec={"num_bystanders": 8}),
    ]
    during = table_of(*cells)
    during = during[during.phase == "during"]
    names = ["num_bystanders", "arm", "num_history_blocks", "max_concurrent_workers"]
    assert during[names].fillna(0).values.tolist() == [
        [2, "sequential", 1, 0],
        [2, "target_block", 2, 0],
        [2, "target_block", 3, 0],
        [2, "target_block", 2, 1],
        [8, "target_block", 2, 0],
    ]


def test_other_studies_take_no_part():
    assert table_of(loaded()).empty
