"""Tables of the MXFP4 study beside the ladder: interventions, errors, speed, facts of runs."""

import pandas as pd
import pytest
from scipy.stats import ttest_rel

from blockwise.errors import ArtifactError
from blockwise.mxfp4.records import (
    Diagnostics,
    OutlierError,
    Outliers,
    Speed,
    StepTimes,
)
from blockwise.tables.mxfp4 import (
    mxfp4_diagnostics,
    mxfp4_interventions,
    mxfp4_layer_errors,
    mxfp4_losses,
    mxfp4_outliers,
    mxfp4_runs,
    mxfp4_scale_rules,
    mxfp4_speed,
)
from training_records import (
    CAPTION,
    ORIGIN,
    STEP_TOKENS,
    diverged,
    error_statistics,
    inputs_of,
    interventions,
    ladder,
    run,
    study,
    training,
)

SR_ARM, DHT_ARM = "W+SR(W:dy)+rceil(W:dy)", "W+DHT16(W)"
ENDS = {
    "fp32": [1.00, 1.25, 1.50, 1.75, 2.00, 2.25],
    "W": [1.06, 1.26, 1.54, 1.80, 2.03, 2.27],
    DHT_ARM: [1.02, 1.25, 1.53, 1.76, 2.02, 2.25],
}


def with_train_losses(settings, arm, seed, end):
    """A run whose last pass over two repeated batches has this mean loss."""
    return run(settings, "i", arm, seed=seed, train_losses=[9.0] * 18 + [end - 0.5, end + 0.5])


def interventions_table(num_seeds=6, lost=()):
    settings = study(i=interventions(["W", DHT_ARM], seeds=range(num_seeds)))
    runs = [
        diverged(settings, "i", arm, seed)
        if (arm, seed) in lost
        else with_train_losses(settings, arm, seed, ends[seed])
        for arm, ends in ENDS.items()
        for seed in range(num_seeds)
    ]
    return mxfp4_interventions.build(inputs_of(settings, runs)).set_index("arm")


def test_the_training_set_loss_is_the_mean_over_one_pass_at_the_end():
    row = interventions_table().loc["W"]
    assert (row.num_repeated_batches, row.num_final_steps) == (2, 2)
    assert row.train_loss_min_nats == pytest.approx(1.06)
    assert row.train_loss_mean_nats == pytest.approx(sum(ENDS["W"]) / 6)


def test_without_repeated_batches_the_last_steps_between_evaluations_are_averaged():
    settings = study(i=interventions(["W"], training=training()))
    losses = [9.0] * 10 + [2.0] * 10
    runs = [run(settings, "i", arm, train_losses=losses) for arm in ("fp32", "W")]
    row = mxfp4_interventions.build(inputs_of(settings, runs)).iloc[1]
    assert (row.num_final_steps, row.train_loss_mean_nats) == (10, 2.0)
    assert pd.isna(row.num_repeated_batches)


def test_an_intervention_is_paired_with_the_baseline_and_with_the_plain_arm():
    row = interventions_table().loc[DHT_ARM]
    assert (row.baseline, row.reference_arm) == ("fp32", "W")
    for name, reference, verdict in (("baseline", "fp32", "higher"), ("reference", "W", "lower")):
        expected = ttest_rel(ENDS[DHT_ARM], ENDS[reference])
        interval = expected.confidence_interval()
        assert row[f"train_loss_over_{name}_t"] == pytest.approx(expected.statistic)
        assert row[f"train_loss_over_{name}_low_nats"] == pytest.approx(interval.low)
        assert row[f"train_loss_over_{name}_high_nats"] == pytest.approx(interval.high)
        assert row[f"train_loss_over_{name}_num_seeds"] == 6
        says = verdict if expected.pvalue < 0.05 else "not powered"
        assert row[f"train_loss_over_{name}_verdict"] == says


def test_fewer_than_six_seeds_say_nothing():
    row = interventions_table(num_seeds=5).loc["W"]
    assert row.train_loss_over_baseline_verdict == "not powered"
    names = ["train_loss_over_baseline_low_nats", "train_loss_over_baseline_t"]
    assert row[names].isna().all()
    assert row.train_loss_over_baseline_mean_nats > 0


def test_plain_arms_and_baselines_have_no_reference():
    table = interventions_table()
    assert table.loc[["fp32", "W"], "reference_arm"].isna().all()
    assert table.loc["fp32", "train_loss_over_baseline_num_seeds"] == 0
    assert pd.isna(table.loc["fp32", "train_loss_over_baseline_verdict"])


def test_diverged_seeds_are_counted_and_take_no_part():
    row = interventions_table(lost=[("W", 2), ("W", 4)]).loc["W"]
    assert (row.num_seeds, row.num_diverged, row.first_divergence_step) == (6, 2, 5)
    assert row.train_loss_over_baseline_num_seeds == 4
    assert row.train_loss_over_baseline_verdict == "not powered"


def diagnostics_study(study_name, arms):
    return study(
        d={
            "study": study_name,
            "arms": arms,
            "seed": 3,
            "training": training(),
            "measure_at_steps": [10],
            "num_batches": 4,
        }
    )


def errors_table(module, errors, study_name="mxfp4_diagnostics", arms=("W", DHT_ARM, SR_ARM)):
    settings = diagnostics_study(study_name, list(arms))
    found = Diagnostics(experiment="d", num_batches=4, errors=errors, origin=ORIGIN)
    return module.build(inputs_of(settings, diagnostics=[found]))


def test_errors_are_summed_up_over_layers():
    errors = [
        error_statistics(layer="a", relative_error=0.1, underflow_frac=[0.0, None]),
        error_statistics(layer="b", relative_error=0.3, underflow_frac=[0.5, None]),
    ]
    table = errors_table(mxfp4_diagnostics, errors)
    assert len(table) == 1
    row = table.iloc[0]
    assert (row.num_layers, row.num_batches, row.seed, row.step) == (2, 4, 3, 10)
    assert row.relative_error_mean == pytest.approx(0.2)
    assert (row.relative_error_min, row.relative_error_max) == (0.1, 0.3)
    assert row.left_underflow_mean_frac == 0.25
    assert pd.isna(row.right_underflow_mean_frac)
    assert row.gradient_to_noise_mean == 8.0
    assert (row.baseline, row.caption) == ("fp32", CAPTION)


def test_every_layer_has_its_errors_in_a_row():
    errors = [
        error_statistics(layer="a", relative_error=0.1, underflow_frac=[0.0, None]),
        error_statistics(layer="b", relative_error=0.3, underflow_frac=[0.5, None]),
    ]
    table = errors_table(mxfp4_layer_errors, errors)
    assert list(table.layer) == ["a", "b"]
    assert list(table.relative_error) == [0.1, 0.3]
    assert list(table.left_underflow_frac) == [0.0, 0.5]
    assert table.right_underflow_frac.isna().all()


def test_a_row_says_what_the_arm_does_to_the_gemm():
    errors = [error_statistics(SR_ARM), error_statistics(DHT_ARM), error_statistics(gemm="F")]
    table = errors_table(mxfp4_diagnostics, errors).set_index(["arm", "gemm"])
    sr, dht, other = table.loc[SR_ARM, "W"], table.loc[DHT_ARM, "W"], table.loc["W", "F"]
    assert (sr.left_operand, sr.left_rounding, sr.left_scale_rule) == ("dy", "sr", "rceil")
    assert (sr.right_operand, sr.right_rounding, sr.right_scale_rule) == ("x", "rtne", "even")
    assert (dht.rotation, dht.rotation_size) == ("dht", 16)
    assert pd.isna(sr.rotation)
    assert (other.left_operand, other.right_operand) == ("x", "w")
    assert other[["left_rounding", "right_groups", "rotation"]].isna().all()
    assert pd.isna(other.gradient_to_noise_mean)


def test_rows_come_by_step_arm_and_gemm():
    places = [(20, "W", "F"), (10, DHT_ARM, "W"), (10, "W", "W"), (10, "W", "F"), (10, "W", "D")]
    errors = [error_statistics(arm, gemm, step=step) for step, arm, gemm in places]
    table = errors_table(mxfp4_diagnostics, errors)
    rows = list(zip(table.step, table.arm, table.gemm, strict=True))
    assert rows == [places[3], places[4], places[2], places[1], places[0]]


def test_each_study_of_errors_has_its_own_table():
    for study_name in ("mxfp4_diagnostics", "mxfp4_scale_rules"):
        tables = {
            module.__name__.rpartition(".")[2]: errors_table(
                module, [error_statistics()], study_name
            )
            for module in (mxfp4_diagnostics, mxfp4_scale_rules)
        }
        assert {name for name, table in tables.items() if len(table)} == {study_name}


def test_errors_of_an_arm_that_the_experiment_does_not_name_are_refused():
    with pytest.raises(ArtifactError, match=r"does not name: F; known: fp32, W.*rerun"):
        errors_table(mxfp4_diagnostics, [error_statistics("F", "F")], arms=["W"])


def outliers_table(errors, arms=("W", DHT_ARM)):
    entry = {
        "study": "mxfp4_outliers",
        "arms": list(arms),
        "seeds": list(range(6)),
        "outlier_sizes": [10.0],
    }
    found = Outliers(experiment="o", errors=errors, origin=ORIGIN)
    return mxfp4_outliers.build(inputs_of(study(o=entry), outliers=[found]))


def outlier(arm="W", seed=0, relative_error=0.1, pattern="token_outliers", size=10.0):
    return OutlierError(
        arm=arm,
        seed=seed,
        pattern=pattern,
        size=size,
        relative_error=relative_error,
        underflow_frac=0.5,
    )


def test_outlier_errors_are_summed_up_over_seeds():
    errors = [outlier(seed=seed, relative_error=0.1 + 0.01 * seed) for seed in range(6)]
    errors += [outlier(DHT_ARM), outlier(pattern="gaussian", size=0.0), outlier(size=100.0)]
    table = outliers_table(errors)
    assert list(zip(table.pattern, table.arm, table.outlier_size, strict=True)) == [
        ("gaussian", "W", 0.0),
        ("token_outliers", "W", 10.0),
        ("token_outliers", "W", 100.0),
        ("token_outliers", DHT_ARM, 10.0),
    ]
    row = table.iloc[1]
    assert row.relative_error_mean == pytest.approx(0.125)
    assert row.relative_error_low < 0.125 < row.relative_error_high
    assert (row.relative_error_num_seeds, row.underflow_mean_frac) == (6, 0.5)
    assert table.iloc[3].relative_error_num_seeds == 1
    assert pd.isna(table.iloc[3].relative_error_low)


def test_outliers_of_an_arm_that_the_experiment_does_not_name_are_refused():
    with pytest.raises(ArtifactError, match=r"does not name: F; known: W"):
        outliers_table([outlier("F")], arms=["W"])


def speed_table(*times, num_rounds=6, arms=("F+D+W",)):
    entry = {
        "study": "mxfp4_speed",
        "arms": list(arms),
        "baselines": ["fp32", "bf16"],
        "batch_sequences": 4,
        "num_rounds": num_rounds,
    }
    found = Speed(
        experiment="s",
        num_parameters=1000,
        tokens_per_step=STEP_TOKENS,
        num_threads=1,
        order=[["fp32"]] * num_rounds,
        times=[StepTimes(arm=arm, form=form, step_s=step_s) for arm, form, step_s in times],
        load_average=0.5,
        cpu_steal_frac=0.0,
        origin=ORIGIN,
    )
    table = mxfp4_speed.build(inputs_of(study(s=entry), speeds=[found]))
    return table.set_index(["arm", "form", "baseline", "baseline_form"])


FP32 = ("fp32", "ours, compiled", [1.0, 2.0, 4.0, 1.0, 2.0, 4.0])
COMPILED = ("F+D+W", "ours, compiled", [1.5, 3.0, 6.0, 1.5, 3.0, 8.0])
TORCHAO = ("F+D+W", "torchao, eager", [4.5, 9.0, 18.0, 4.5, 9.0, 24.0])


def test_ratios_are_formed_inside_a_round():
    row = speed_table(FP32, COMPILED).loc[("F+D+W", "ours, compiled", "fp32", "ours, compiled")]
    assert row.step_ratio_median == 1.5  # of medians it would be 3 / 2, of means 23 / 14
    assert (row.step_ratio_min, row.step_ratio_max) == (pytest.approx(1.5), pytest.approx(2.0))
    assert row.step_ratio_low < row.step_ratio_mean < row.step_ratio_high
    assert (row.step_ratio_num_rounds, row.step_median_s) == (6, 3.0)
    assert pd.isna(row.note)


def test_an_arm_stands_against_baselines_and_its_own_other_forms():
    table = speed_table(FP32, COMPILED, TORCHAO)
    assert table.loc[TORCHAO[:2] + COMPILED[:2]].step_ratio_median == 3.0
    assert table.loc[TORCHAO[:2] + COMPILED[:2]].note == "eager against compiled"
    assert table.loc[FP32[:2] + FP32[:2]].note == "the baseline itself"
    assert set(table.index) == {
        *(one[:2] + FP32[:2] for one in (FP32, COMPILED, TORCHAO)),
        COMPILED[:2] + TORCHAO[:2],
        TORCHAO[:2] + COMPILED[:2],
    }


def test_a_timing_without_a_step_in_each_round_is_refused():
    with pytest.raises(ArtifactError, match=r"fp32 .* has 2 steps in 6 rounds.*rerun"):
        speed_table(("fp32", "ours, compiled", [1.0, 2.0]))


def test_loss_curves_carry_the_training_loss_since_the_evaluation_before():
    settings = study(l=ladder(["F"], seeds=[7]))
    losses = [4.0] * 10 + [2.0] * 10
    runs = [run(settings, "l", "F", seed=7, train_losses=losses)]
    table = mxfp4_losses.build(inputs_of(settings, runs))
    assert list(table.step) == [0, 10, 20]
    assert list(table.train_tokens) == [0, 10 * STEP_TOKENS, 20 * STEP_TOKENS]
    assert list(table.quantized_loss_nats) == [3.0, 2.0, 1.0]
    assert table.train_loss_nats.fillna(-1).tolist() == [-1, 4.0, 2.0]
    assert set(table.seed) == {7}


def test_a_loss_that_is_not_finite_is_empty():
    settings = study(l=ladder(["F"]))
    runs = [run(settings, "l", "F", (3.0, None, 1.0))]
    table = mxfp4_losses.build(inputs_of(settings, runs))
    assert table.quantized_loss_nats.isna().tolist() == [False, True, False]


def test_a_run_has_its_facts_and_a_diverged_one_no_final_loss():
    settings = study(l=ladder(["F"]))
    runs = [run(settings, "l", "fp8"), diverged(settings, "l", "F", num_resumes=1)]
    table = mxfp4_runs.build(inputs_of(settings, runs)).set_index("arm")
    sound, lost = table.loc["fp8"], table.loc["F"]
    assert (sound.study, sound.is_baseline, lost.is_baseline) == ("mxfp4_ladder", True, False)
    assert (sound.status, sound.num_steps_done, sound.final_quantized_loss_nats) == (
        "finished",
        20,
        1.0,
    )
    assert sound.train_tokens == 20 * STEP_TOKENS
    assert (lost.status, lost.diverged_at_step, lost.num_steps_done) == ("diverged", 5, 5)
    assert pd.isna(lost.final_quantized_loss_nats)
    assert (sound.precision, lost.precision, lost.quantized_gemms) == ("fp8", "mxfp4", "F")
    assert pd.isna(sound.quantized_gemms)
    assert lost.num_resumes == 1


def test_the_caption_stands_in_every_row():
    settings = study(l=ladder(["F"]), i=interventions(["W"]))
    runs = [run(settings, "l", arm) for arm in ("fp8", "F")]
    runs += [run(settings, "i", arm) for arm in ("fp32", "W")]
    for module in (mxfp4_runs, mxfp4_losses, mxfp4_interventions):
        table = module.build(inputs_of(settings, runs))
        assert set(table.caption) == {CAPTION}
        assert set(table.num_parameters) == {1000}
