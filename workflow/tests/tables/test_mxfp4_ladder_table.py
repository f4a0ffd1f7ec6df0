"""Tokens to a target: interpolation, censoring, divergence, and what the paper reports."""

import pandas as pd
import pytest

from blockwise.config.recipes import Recipe
from blockwise.mxfp4.records import Evaluation
from blockwise.tables.mxfp4.mxfp4_ladder import build
from blockwise.tables.mxfp4.parts.reported import NO_CONVERGENCE, REACHED, reported_for
from training_records import (
    ARMS,
    DHT16,
    FD,
    RCEIL,
    RHT16,
    SR,
    SR34,
    STEP_TOKENS,
    diverged,
    inputs_of,
    ladder,
    run,
    study,
    training,
)

HORIZON = 20  # steps of a run; the target is the baseline's loss at step 10


def table_of(own, arm="F", baseline="fp8", baseline_losses=((3.0, 2.0, 1.0),), **changes):
    """Table of an arm whose seeds have these losses, None: diverged, and of its baseline's."""
    seeds = range(len(own))
    settings = study(ladder=ladder([arm], [baseline], seeds, **changes))
    by_seed = list(baseline_losses) * (len(own) if len(baseline_losses) == 1 else 1)
    runs = [run(settings, "ladder", baseline, by_seed[seed], seed) for seed in seeds]
    runs += [
        diverged(settings, "ladder", arm, seed)
        if own[seed] is None
        else run(settings, "ladder", arm, own[seed], seed)
        for seed in seeds
    ]
    return build(inputs_of(settings, runs))


def row_of(*own, arm="F", **changes):
    table = table_of(own, arm, **changes)
    rows = table[table.arm == arm]
    assert len(rows) == 1
    return rows.iloc[0]


def test_tokens_to_the_target_are_interpolated_between_evaluations():
    row = row_of((3.0, 2.5, 1.5))  # the target, 2, lies half way from step 10 to 20
    assert row.target_loss_mean_nats == 2.0
    assert row.baseline_to_target_mean_tokens == 10 * STEP_TOKENS
    assert row.to_target_mean_tokens == 15 * STEP_TOKENS
    assert row.overhead_mean_frac == 0.5
    assert (row.num_reached, row.num_not_reached, row.num_diverged) == (1, 0, 0)


def test_the_target_itself_is_interpolated_between_evaluations():
    row = row_of((3.0, 2.0, 1.0), target_step=12)
    assert row.target_loss_mean_nats == pytest.approx(1.8)
    assert row.to_target_mean_tokens == pytest.approx(12 * STEP_TOKENS)


def test_a_lucky_dip_counts_for_the_baseline_too():
    dips = (3.0, 1.0, 2.0, 1.0)  # below its loss at step 20 already at step 5
    changes = {"target_step": 20, "training": training(num_steps=30), "baseline_losses": (dips,)}
    row = row_of(dips, **changes)
    assert row.baseline_to_target_mean_tokens == 5 * STEP_TOKENS
    assert row.overhead_mean_frac == 0.0


def test_what_ends_above_the_target_is_censored_and_bounds_the_overhead():
    row = row_of((3.0, 2.0, 1.0), (3.0, 2.8, 2.5))
    assert (row.num_reached, row.num_not_reached, row.num_diverged) == (1, 1, 0)
    empty = ["overhead_mean_frac", "overhead_max_frac", "to_target_mean_tokens"]
    assert row[empty].isna().all()  # a mean over the seed that got there would flatter the arm
    assert (row.overhead_min_frac, row.overhead_num_seeds) == (0.0, 1)
    assert row.overhead_at_least_frac == (0.0 + (HORIZON / 10 - 1)) / 2


def test_a_diverged_run_is_apart_from_one_that_does_not_get_there():
    row = row_of(None, (3.0, 2.0, 1.0))
    assert (row.num_reached, row.num_not_reached, row.num_diverged) == (1, 0, 1)
    assert row.first_divergence_step == 5
    assert row.overhead_at_least_frac == 0.5
    assert row.final_quantized_loss_num_seeds == 1
    assert row.final_quantized_loss_difference_mean_nats == 0.0


def test_a_set_target_is_one_for_all_seeds_and_for_the_baseline_too():
    changes = {"target_step": None, "target_loss": 1.5}
    baselines = [(3.0, 2.0, 1.0), (3.0, 1.0, 1.0)]  # there after 15 and 7.5 steps
    row = row_of((3.0, 2.25, 1.5), (3.0, 2.0, 1.0), baseline_losses=baselines, **changes)
    assert pd.isna(row.target_step)
    assert (row.target_loss_min_nats, row.target_loss_max_nats) == (1.5, 1.5)
    assert row.baseline_to_target_mean_tokens == 11.25 * STEP_TOKENS
    assert (row.overhead_min_frac, row.overhead_max_frac) == pytest.approx((20 / 15 - 1, 1.0))


def test_a_baseline_that_never_has_the_set_target_compares_nothing():
    changes = {"target_step": None, "target_loss": 0.5}
    row = row_of((3.0, 2.0, 0.25), **changes)
    assert (row.num_no_target, row.num_reached) == (1, 0)
    assert row[["overhead_mean_frac", "verdict"]].isna().all()


@pytest.mark.parametrize("baseline_losses", [(3.0, 3.5, 1.0), (3.0, None, 1.0)])
def test_a_baseline_that_learns_nothing_gives_no_target(baseline_losses):
    row = row_of((3.0, 2.0, 1.0), baseline_losses=(baseline_losses,))
    assert (row.num_no_target, row.num_reached, row.num_not_reached) == (1, 0, 0)
    assert pd.isna(row.overhead_mean_frac)
    assert pd.isna(row.verdict)


def test_after_a_loss_that_is_not_finite_the_next_evaluation_counts():
    row = row_of((3.0, None, 1.0))
    assert row.to_target_mean_tokens == HORIZON * STEP_TOKENS


def slower_by(*steps):
    """Losses that reach the baseline's target so many steps late."""
    return [(3.0, 3.0, 3.0 - 10 / late) for late in steps]


def test_six_seeds_give_an_interval_and_a_verdict():
    row = row_of(*slower_by(5, 6, 5, 6, 5, 6))
    assert row.overhead_mean_frac == pytest.approx(0.55)
    assert 0 < row.overhead_low_frac < 0.55 < row.overhead_high_frac
    assert (row.verdict, row.overhead_num_seeds) == ("slower", 6)


def test_five_seeds_are_not_powered_however_clear():
    row = row_of(*slower_by(5, 6, 5, 6, 5))
    assert row.verdict == "not powered"
    assert pd.isna(row.overhead_low_frac)
    assert (row.overhead_min_frac, row.overhead_max_frac) == pytest.approx((0.5, 0.6))


def test_an_interval_that_includes_zero_is_not_powered():
    early, late = (3.0, 1.8, 1.0), (3.0, 2.2, 1.0)
    row = row_of(early, late, early, late, early, late)
    assert row.overhead_low_frac < 0 < row.overhead_high_frac
    assert row.verdict == "not powered"


def test_six_seeds_that_do_not_get_there_are_slower_though_nobody_knows_by_how_much():
    row = row_of(*[(3.0, 2.8, 2.5)] * 5, None)
    assert row.verdict == "slower"
    assert row.overhead_at_least_frac == 1.0
    assert row[["overhead_mean_frac", "overhead_min_frac"]].isna().all()


def test_arms_are_paired_by_seed():
    levels = [0.0, 5.0, -1.0, 2.0, 9.0, 4.0]
    baselines = [(3.0 + level, 2.0 + level, 1.0 + level) for level in levels]
    own = [(3.0 + level, 2.5 + level, 1.25 + level) for level in levels]
    row = row_of(*own, baseline_losses=baselines)
    assert (row.overhead_min_frac, row.overhead_max_frac) == pytest.approx((0.4, 0.4))
    assert row.final_quantized_loss_difference_mean_nats == 0.25
    assert row.final_quantized_loss_difference_verdict == "higher"
    assert row.final_quantized_loss_max_nats - row.final_quantized_loss_min_nats == 10.0


def test_the_baselines_own_row_compares_nothing():
    table = table_of([(3.0, 2.0, 1.0)])
    row = table[table.arm == "fp8"].iloc[0]
    assert (row.to_target_mean_tokens, row.overhead_num_seeds) == (10 * STEP_TOKENS, 0)
    names = ["verdict", "overhead_mean_frac", "final_quantized_loss_difference_verdict"]
    assert row[names].isna().all()


def test_both_evaluations_are_reported():
    settings = study(ladder=ladder(["F"]))
    ends = [
        Evaluation(step=step, quantized_loss=loss, unquantized_loss=loss - 0.5)
        for step, loss in ((0, 3.0), (10, 2.0), (20, 1.0))
    ]
    runs = [run(settings, "ladder", "fp8"), run(settings, "ladder", "F", evaluations=ends)]
    row = build(inputs_of(settings, runs)).iloc[1]
    assert row.final_quantized_loss_difference_mean_nats == 0.0
    assert row.final_unquantized_loss_difference_mean_nats == -0.5


def test_rows_come_in_the_order_of_the_configuration_one_a_baseline():
    settings = study(ladder=ladder(["F+D+W", "F"], ["fp8", "bf16"]))
    arms = ("F", "bf16", "F+D+W", "fp8")
    table = build(inputs_of(settings, [run(settings, "ladder", arm) for arm in arms[::-1]]))
    assert set(zip(table.baseline, table.arm, strict=True)) == {
        (baseline, arm) for baseline in ("fp8", "bf16") for arm in arms
    }
    assert list(table.baseline.unique()) == ["fp8", "bf16"]


@pytest.mark.parametrize("baseline", ["fp8", "fp32"])
def test_reported_values_stand_beside_rows_against_fp8_only(baseline):
    row = row_of((3.0, 2.0, 1.0), arm="F+D+W", baseline=baseline)
    names = ["reported_low_frac", "reported_high_frac", "reported_outcome", "reported_source"]
    if baseline == "fp8":
        assert list(row[names]) == [0.26, 0.27, REACHED, "reported (secondary)"]
    else:
        assert row[names].isna().all()


def reported(**gemms):
    return reported_for(Recipe.model_validate(gemms), ARMS["fp8"])


def test_arms_that_differ_in_what_nobody_reports_share_the_paper_s_number():
    everywhere = {"fprop": {"rotation": DHT16}, "dgrad": {"rotation": DHT16}}
    assert reported(**FD, wgrad={"rotation": DHT16}).low_frac == 0.08
    assert reported(**everywhere, wgrad={"rotation": DHT16}).low_frac == 0.08
    for wgrad in ({"dy": SR}, {"dy": SR, "x": SR}, {"rotation": RHT16}):
        assert reported(**FD, wgrad=wgrad).outcome == NO_CONVERGENCE
    squares = {"groups": "2d"}
    assert reported(fprop={"w": squares}).high_frac == 0.09


@pytest.mark.parametrize(
    "gemms",
    [
        {"wgrad": {}},
        {**FD, "wgrad": {"dy": SR34}},
        {**FD, "wgrad": {"dy": SR | RCEIL}},
        {**FD, "wgrad": {"dy": SR, "rotation": RHT16}},
        {**FD, "wgrad": {"rotation": RHT16 | {"size": 32}}},
        {**FD, "wgrad": {"rotation": RHT16 | {"signs": "mismatched"}}},
        {**FD, "wgrad": {"x": None}},
        {"fprop": {"rotation": DHT16}, "dgrad": {}, "wgrad": {}},
    ],
)
def test_the_paper_reports_nothing_of_other_arms(gemms):
    assert reported(**gemms) is None
