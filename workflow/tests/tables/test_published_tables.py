"""Tables of what is measured on a published model, from records whose numbers are known."""

import pytest

import published_records
from blockwise.errors import ArtifactError
from blockwise.tables.inputs import TableInputs
from blockwise.tables.mxfp4 import (
    mxfp4_descent,
    mxfp4_layer_depths,
    mxfp4_layer_errors,
    mxfp4_layer_medians,
    mxfp4_layer_ratios,
    mxfp4_operands,
)
from blockwise.tables.mxfp4.mxfp4_layer_depths import depth_of
from blockwise.tables.mxfp4.parts.published import quartiles
from published_records import DHT, LAYERS, RHT, gain_of, mean_frac


@pytest.fixture(scope="module")
def inputs():
    return published_records.inputs()


def test_every_layer_gemm_and_arm_has_a_row_of_errors_and_operands(inputs):
    errors, operands = mxfp4_layer_errors.build(inputs), mxfp4_operands.build(inputs)
    assert len(errors) == len(LAYERS) * (5 + 4 + 4)  # W alone acts in Wgrad alone
    assert len(operands) == len(LAYERS) * 3
    row = operands[(operands.layer == LAYERS[2]) & (operands.operand == "x")].iloc[0]
    assert (row["mean_over_rows_frac"], row["kurtosis"]) == (pytest.approx(0.3), 70)


def test_medians_are_over_all_layers_and_by_depth(inputs):
    table = mxfp4_layer_medians.build(inputs)
    whole = table.set_index(["gemm", "arm"])
    assert list(dict.fromkeys(table.gemm)) == ["W", "D", "F"]
    dht = whole.loc["W", DHT]
    assert (dht.num_layers, dht.num_batches) == (6, 8)
    assert dht.relative_error_median == pytest.approx(0.1 * 1.25)
    assert (dht.relative_error_q1, dht.relative_error_q3) == pytest.approx((0.11, 0.14))
    assert (dht.relative_error_min, dht.relative_error_max) == pytest.approx((0.1, 0.15))
    depths = mxfp4_layer_depths.build(inputs)
    first = depths[(depths.gemm == "W") & (depths.arm == DHT) & (depths.depth == 0)].iloc[0]
    assert (first.num_layers, first.relative_error_median) == (2, pytest.approx(0.105))
    assert list(dict.fromkeys(depths.depth)) == [0, 1, 2]
    assert set(depths.arm) == {DHT, RHT, "W", "F+D+W"}  # those that ratios name
    assert table.caption.iloc[0] == "a model from a 4-bit file; emulated"


def test_the_worst_gemm_of_a_layer_is_counted_where_there_are_several(inputs):
    table = mxfp4_layer_medians.build(inputs)
    whole = table.set_index(["gemm", "arm"])
    assert [whole.loc[gemm, "F+D+W"].num_worst for gemm in "WDF"] == [0, 0, 6]
    assert [whole.loc[gemm, DHT].num_worst for gemm in "WDF"] == [3, 0, 3]
    assert whole.loc["W", "W"].isna().num_worst


def test_ratios_stand_beside_the_means_along_the_summed_dimension(inputs):
    table = mxfp4_layer_ratios.build(inputs)
    wgrad = table[(table.gemm == "W") & (table.arm == DHT)].set_index("layer")
    assert set(wgrad.other_arm) == {RHT}
    assert wgrad.loc[LAYERS[3]].ratio == pytest.approx(1.3)
    assert wgrad.loc[LAYERS[3]].right_mean_frac == pytest.approx(mean_frac(LAYERS[3]))
    first = wgrad.iloc[0]
    assert (first.left_operand, first.right_operand) == ("dy", "x")
    assert (first.num_layers, first.num_above_one) == (6, 5)
    assert first.median_ratio == pytest.approx(1.25)
    assert first.right_spearman == pytest.approx(1.0)
    assert wgrad.left_spearman.isna().all()  # all the same
    fprop = table[(table.gemm == "F") & (table.arm == DHT)]
    assert set(fprop.left_mean_frac) == set(fprop.right_mean_frac) == {0.02}
    assert set(fprop.ratio) == {1.0}
    assert set(table[table.arm == "W"].gemm) == {"W"}


def test_quartiles_by_hand():
    assert quartiles([5.0]) == (5, 5, 5)
    assert quartiles([4.0, 1.0, 3.0, 2.0]) == (2.5, 1.5, 3.5)
    assert quartiles([5.0, 1.0, 2.0, 3.0, 4.0]) == (3, 2, 4)
    assert depth_of("model.layers.12.mlp.up_proj") == 12
    assert depth_of("head") is None


def test_gains_are_shares_of_each_reference_by_start(inputs):
    table = mxfp4_descent.build(inputs).set_index(["step", "reference", "arm"])
    assert len(table) == 2 * 3 * 6
    null = table.loc["equal length", "fp32", "fp32-reordered"]
    shares = [gain_of("fp32-reordered", start) / gain_of("fp32", start) for start in range(6)]
    assert null.share_mean_frac == pytest.approx(sum(shares) / 6)
    assert (null.share_num_starts, null.num_asked_starts) == (6, 6)
    assert table.loc["equal length", "fp32", "W"].share_verdict == "less"
    assert table.loc["equal length", "fp8", "W"].share_mean_frac == pytest.approx(1.8, rel=0.01)
    assert table.loc["signs", "fp32", "F"].gain_mean_nats == pytest.approx(
        sum(gain_of("F", start) for start in range(6)) / 12
    )
    own = table.loc["signs", "W", "W"]
    assert (own.share_min_frac, own.share_max_frac, own.share_verdict) == (1, 1, "not powered")
    assert own.step_frac == 3e-4


def test_few_starts_have_a_range_and_no_interval():
    study = published_records.settings()
    starts = published_records.descents(study, starts=[0, 3])
    table = mxfp4_descent.build(TableInputs(mxfp4=study, descents=starts))
    assert set(table.share_num_starts) == {2}
    assert table.share_low_frac.isna().all()
    assert set(table.share_verdict) == {"not powered"}


def test_arms_that_the_experiment_does_not_name_are_refused():
    study = published_records.settings()
    errors = published_records.layer_errors(study)
    entry = study.experiments["errors"].model_copy(update={"arms": ["F+D+W"], "ratios": []})
    changed = study.model_copy(update={"experiments": {"errors": entry}})
    with pytest.raises(ArtifactError, match=r"arms that it does not name: .*fp8.*Delete its files"):
        mxfp4_layer_medians.build(TableInputs(mxfp4=changed, layer_errors=errors))
