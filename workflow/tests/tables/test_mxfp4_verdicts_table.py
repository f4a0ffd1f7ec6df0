"""The quantities that decide: differences, recovered fractions, and the null arm beside them."""

import pytest

from blockwise.config.recipes import Recipe
from blockwise.mxfp4.records import Evaluation
from blockwise.tables.mxfp4 import mxfp4_ladder, mxfp4_seeds
from blockwise.tables.mxfp4.mxfp4_verdicts import CENSORED, NULL_IS_OFF, build
from blockwise.tables.mxfp4.parts.spread import NOT_POWERED
from training_records import ARMS, STEP_TOKENS, inputs_of, ladder, run, study, training

NULL = "fp8-reordered"
DHT, RHT = "F+D+W+DHT16(W)", "F+D+W+RHT16(W)"
SEEDS = range(6)
LOSSES = {"fp8": 1.0, NULL: 1.0, "F+D": 1.1, "F+D+W": 1.5, DHT: 1.2, RHT: 1.3}
WIGGLE = (0.01, -0.01, 0.02, -0.02, 0.005, -0.005)


@pytest.fixture(autouse=True)
def null_recipe(monkeypatch):
    monkeypatch.setitem(ARMS, NULL, Recipe(precision=NULL))


def settings_of(seeds=SEEDS, **changes):
    own = ladder([arm for arm in LOSSES if arm not in ("fp8", NULL)], seeds=seeds)
    return study(ladder={**own, "null_arm": NULL, **changes})


def losses_of(arm, seed, losses):
    """Three losses that end where they should; every arm strays by seed in a way of its own."""
    own = WIGGLE[(seed + list(losses).index(arm)) % len(WIGGLE)]
    last = losses[arm] + own
    return (3.0, max(2.0, last), last)


def runs_of(settings, losses=LOSSES, seeds=SEEDS, name="ladder"):
    arms = settings.experiments[name].all_arms()
    return [
        run(settings, name, arm, losses_of(arm, seed, losses), seed)
        for arm in arms
        for seed in seeds
    ]


def rows_of(losses=LOSSES, seeds=SEEDS, measure="final_quantized_loss", **changes):
    settings = settings_of(seeds, **changes)
    table = build(inputs_of(settings, runs_of(settings, losses, seeds)))
    return table[table.measure == measure].set_index(["quantity", "arm"])


def test_every_arm_stands_against_the_baseline_beside_the_null_arm():
    rows = rows_of()
    row = rows.loc["over baseline", "F+D+W"]
    assert row.effect_mean == pytest.approx(0.5)
    assert row.effect_num_seeds == 6
    assert row.verdict == "higher"
    assert row.null_mean == pytest.approx(0.0, abs=1e-12)
    assert row.smallest_resolved == pytest.approx((row.null_high - row.null_low) / 2)
    null = rows.loc["over baseline", NULL]
    assert null.verdict == NOT_POWERED
    assert (null.effect_low, null.effect_high) == (null.null_low, null.null_high)


def test_wgrad_beyond_the_rest_and_signs_against_no_signs():
    rows = rows_of()
    wgrad = rows.loc["difference", "F+D+W"]
    assert (wgrad.reference, wgrad.verdict) == ("F+D", "higher")
    assert wgrad.effect_mean == pytest.approx(0.4)
    signs = rows.loc["difference", DHT]
    assert (signs.reference, signs.verdict) == (RHT, "lower")
    assert signs.effect_mean == pytest.approx(-0.1)


def test_a_remedy_recovers_a_fraction_of_what_wgrad_adds():
    rows = rows_of()
    assert rows.loc["recovered", DHT].effect_mean == pytest.approx(0.75)
    rht = rows.loc["recovered", RHT]
    assert rht.effect_mean == pytest.approx(0.5)
    assert 0 < rht.effect_low < 0.5 < rht.effect_high < 1
    assert (rht.verdict, rht.unit) == ("some", "1")
    assert rht.isna().null_mean


def test_where_wgrad_adds_nothing_nothing_is_recovered():
    rows = rows_of({**LOSSES, "F+D+W": LOSSES["F+D"] + 0.001})
    row = rows.loc["recovered", DHT]
    assert row.isna()[["effect_low", "effect_high"]].all()
    assert row.verdict == NOT_POWERED


def test_a_null_arm_off_zero_takes_the_verdicts_away():
    rows = rows_of({**LOSSES, NULL: 1.2})
    for key in (("over baseline", "F+D+W"), ("difference", DHT), ("recovered", DHT)):
        assert rows.loc[key].verdict == NULL_IS_OFF
        assert rows.loc[key].note == f"not testable at this scale: {NULL_IS_OFF}"


def test_below_six_seeds_nothing_is_decided():
    rows = rows_of(seeds=range(5))
    row = rows.loc["over baseline", "F+D+W"]
    assert row.verdict == NOT_POWERED
    assert row.isna()[["effect_low", "effect_high", "smallest_resolved"]].all()


def test_tokens_to_the_target_and_what_is_censored():
    rows = rows_of({**LOSSES, "F+D+W": 2.5}, measure="overhead")
    reached = rows.loc["over baseline", "F+D"]
    assert (reached.num_censored, reached.unit) == (0, "1")
    assert reached.effect_mean == pytest.approx(0.0)
    for key in (("over baseline", "F+D+W"), ("recovered", DHT)):
        row = rows.loc[key]
        assert (row.num_censored, row.verdict) == (6, CENSORED)
        assert row.isna()[["effect_low", "effect_high"]].all()


def test_another_eps_is_a_difference_of_distances():
    eps = {"learning_rate": 0.001, "warmup_steps": 2, "eps": 1e-5}
    settings = settings_of()
    other = {**ladder(["F+D+W"], seeds=[0, 1]), "optimizer": eps}
    both = study(ladder=settings.experiments["ladder"].model_dump(mode="json"), eps=other)
    worse = {**LOSSES, "F+D+W": 1.7}
    runs = [*runs_of(both), *runs_of(both, worse, range(2), name="eps")]
    table = build(inputs_of(both, runs))
    row = table[(table.quantity == "other eps") & (table.measure == "final_quantized_loss")].iloc[0]
    assert (row.experiment, row.arm, row.reference) == ("eps", "F+D+W", "ladder")
    assert row.effect_mean == pytest.approx(0.2)
    assert (row.effect_num_seeds, row.verdict) == (2, NOT_POWERED)


def test_a_longer_last_evaluation_is_the_final_loss_and_no_point_of_the_curve():
    settings = settings_of([0])
    final = Evaluation(step=20, quantized_loss=0.7, unquantized_loss=0.6, averaged_loss=0.5)
    runs = [
        run(settings, "ladder", arm, (3.0, 2.0, 1.0), final_evaluation=final)
        for arm in ("fp8", "F+D")
    ]
    table = mxfp4_seeds.build(inputs_of(settings, runs))
    row = table[table.arm == "F+D"].iloc[0]
    assert row.final_quantized_loss_nats == 0.7
    assert row.final_unquantized_loss_nats == 0.6
    assert row.final_averaged_loss_nats == 0.5
    assert (row.overhead_frac, row.is_censored) == (0.0, False)
    assert row.to_target_tokens == 10 * STEP_TOKENS


def test_the_target_may_be_reached_along_averaged_losses():
    settings = settings_of([0], curve="averaged", training=training(average_decay=0.9))

    def with_averages(arm, averages):
        points = [
            Evaluation(step=step, quantized_loss=9.0, unquantized_loss=9.0, averaged_loss=loss)
            for step, loss in zip((0, 10, 20), averages, strict=True)
        ]
        return run(settings, "ladder", arm, evaluations=points)

    runs = [with_averages("fp8", (3.0, 2.0, 1.0)), with_averages("F+D", (3.0, 2.5, 1.5))]
    row = mxfp4_ladder.build(inputs_of(settings, runs)).set_index("arm").loc["F+D"]
    assert row.curve == "averaged"
    assert row.to_target_mean_tokens == 15 * STEP_TOKENS


def test_the_ladder_shows_the_null_arm_beside_every_arm():
    settings = settings_of()
    table = mxfp4_ladder.build(inputs_of(settings, runs_of(settings)))
    null = table[table.arm == NULL].iloc[0]
    for row in table.itertuples():
        assert row.null_arm == NULL
        assert row.null_overhead_num_seeds == 6
        assert row.null_quantized_loss_difference_low_nats == pytest.approx(
            null.final_quantized_loss_difference_low_nats
        )
