"""Eager arms against the others: what is stall, what is background, and what the agent pays."""

import pandas as pd
import pytest

from blockwise.config.choices import Study
from blockwise.tables.compaction.compaction_eager import build
from blockwise.tables.inputs import TableInputs
from record_factory import compaction, loaded, record, request

TURNS = (0.2, 0.4)  # first-token latency of two turns of the agent


def turns(factor=1.0):
    return tuple(
        request(turn_index=number, start_s=5.0 * number, ttft_s=ttft_s * factor, wall_s=1.0)
        for number, ttft_s in enumerate(TURNS)
    )


def cell(
    arm="suffix_target",
    size=512,
    *,
    eager=False,
    open_block="compact",
    stall_s=2.0,
    output_tokens=256,
    requests=(),
    start=1,
    wait_s=0.0,
    **changes,
):
    spec = {"is_eager": eager, "open_block": open_block, "tool_wait_s": wait_s}
    done = compaction(stall_s=stall_s, output_tokens=output_tokens, **changes.pop("done", {}))
    return loaded(
        record(
            arm,
            size,
            requests=requests or turns(),
            compactions=(done,),
            spec=spec,
            server_start=start,
            **changes,
        ),
        study=Study.EAGER,
        experiment="eager",
    )


def sequential(**changes):
    return cell("sequential", None, **{"stall_s": 8.0, **changes})


def rows(*cells):
    table = build(TableInputs(cells=cells))
    return {(row.mode, row.open_block, row.tool_wait_s): row for row in table.itertuples()}


def test_the_stall_is_held_against_sequential_and_the_wall_against_parallel():
    found = rows(
        sequential(),
        cell(stall_s=2.0, wall_s=20.0),
        cell(eager=True, stall_s=0.5, wall_s=18.0, waited_s=3.0),
    )
    eager = found["eager", "compact", 0.0]
    assert eager.stall_over_sequential_mean == pytest.approx(0.5 / 8)
    assert eager.working_over_parallel_mean == pytest.approx(15 / 20)
    assert (eager.stall_p50_s, eager.stall_num_compactions) == (0.5, 1)
    parallel = found["parallel", "compact", 0.0]
    assert parallel.stall_over_sequential_mean == pytest.approx(2 / 8)
    assert pd.isna(parallel.working_over_parallel_mean)
    assert pd.isna(found["sequential", "compact", 0.0].stall_over_sequential_mean)


def test_an_arm_is_paired_with_parallel_of_its_own_open_block_and_wait():
    found = rows(
        cell(wall_s=20.0),
        cell(open_block="keep", wall_s=10.0, output_tokens=128),
        cell(eager=True, open_block="keep", wall_s=9.0, output_tokens=128),
        cell(eager=True, open_block="keep", wall_s=9.0, output_tokens=128, wait_s=2.0),
    )
    assert found["eager", "keep", 0.0].working_over_parallel_mean == pytest.approx(0.9)
    assert pd.isna(found["eager", "keep", 2.0].working_over_parallel_mean)


def test_unequal_volume_forms_no_wall_ratio_and_still_a_stall():
    found = rows(sequential(), cell(), cell(eager=True, stall_s=1.0, output_tokens=99))
    eager = found["eager", "compact", 0.0]
    assert pd.isna(eager.working_over_parallel_mean)
    assert eager.stall_over_sequential_mean == pytest.approx(1 / 8)
    assert eager.compaction_output_mean_tokens == 99


def test_the_agent_pays_in_the_turns_during_which_workers_run():
    worker = request("worker", start_s=5.5, wall_s=2.0, completion_tokens=128)
    found = rows(cell(), cell(eager=True, requests=(*turns(1.5), worker)))
    assert found["eager", "compact", 0.0].agent_ttft_over_parallel_mean == pytest.approx(1.5)
    late = request("worker", start_s=7.0, wall_s=2.0, completion_tokens=128)
    found = rows(cell(), cell(eager=True, requests=(*turns(1.5), late)))
    assert pd.isna(found["eager", "compact", 0.0].agent_ttft_over_parallel_mean)


def test_background_and_waste_have_columns_of_their_own():
    unused = request("unused", start_s=5.0, wall_s=1.0, completion_tokens=64)
    done = {"num_ahead_workers": 1, "background_s": 3.0}
    eager = cell(
        eager=True, done=done, requests=(*turns(), request("worker"), request("worker"), unused)
    )
    row = rows(cell(), eager)["eager", "compact", 0.0]
    assert (row.background_mean_s, row.unused_mean_tokens, row.ahead_mean_frac) == (3.0, 64, 0.5)


def test_times_cluster_by_server_start():
    cells = [
        one
        for start in range(1, 7)
        for one in (sequential(start=start), cell(eager=True, stall_s=0.4, start=start))
    ]
    row = rows(*cells)["eager", "compact", 0.0]
    assert (row.num_server_starts, row.stall_over_sequential_num_clusters) == (6, 6)
    assert row.stall_over_sequential_low == pytest.approx(0.05)
