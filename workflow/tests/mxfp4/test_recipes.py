"""An arm's name says what it does, and a configuration that cannot mean anything is refused."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from blockwise.config.mxfp4 import MXFP4, LlamaShape, is_quantized, named_arms
from blockwise.config.recipes import (
    DeterministicHadamard,
    GroupShape,
    Operand,
    RandomizedHadamard,
    Recipe,
    Rounding,
    ScaleRule,
    Wgrad,
)

SR = {"rounding": "sr"}
SR34 = {"rounding": "sr34"}
DHT16 = {"kind": "dht", "size": 16}
RHT16 = {"kind": "rht", "size": 16}
ALL = {"fprop": {}, "dgrad": {}, "wgrad": {}}


def rotated(rotation, *names):
    return {**ALL, **{name: {"rotation": rotation} for name in names}}


NAMES = {
    "fp32": {"precision": "fp32"},
    "bf16": {"precision": "bf16"},
    "fp8": {"precision": "fp8"},
    "F": {"fprop": {}},
    "F+D": {"fprop": {}, "dgrad": {}},
    "F+D+W": ALL,
    "W": {"wgrad": {}},
    "W+SR(W:dy)": {"wgrad": {"dy": SR}},
    "W+SR(W:dy,W:x)": {"wgrad": {"dy": SR, "x": SR}},
    "W+SR(3/4)(W:dy)": {"wgrad": {"dy": SR34}},
    "W+SR(W:dy)+rceil(W:dy,W:x)": {
        "wgrad": {"dy": {**SR, "scale_rule": "rceil"}, "x": {"scale_rule": "rceil"}}
    },
    "F+D+W+SR(D:dy,W:dy)": {**ALL, "dgrad": {"dy": SR}, "wgrad": {"dy": SR}},
    "F+D+W+RHT16(W)": rotated(RHT16, "wgrad"),
    "F+D+W+RHT16(F,D,W)": rotated(RHT16, "fprop", "dgrad", "wgrad"),
    "F+D+W+DHT16(W)": rotated(DHT16, "wgrad"),
    "F+D+W+DHT32(W)": rotated({"kind": "dht", "size": 32}, "wgrad"),
    "F+D+W+SR(W:dy)+RHT16(W)": {**ALL, "wgrad": {"dy": SR, "rotation": RHT16}},
    "W+RHT32-fixed(W)": {"wgrad": {"rotation": {"kind": "rht", "size": 32, "signs": "fixed"}}},
    "W+RHT16-mismatched(W)": {"wgrad": {"rotation": {**RHT16, "signs": "mismatched"}}},
    "F+floor(F:x)+2D(F:w)": {
        "fprop": {"x": {"scale_rule": "floor"}, "w": {"groups": "2d"}},
    },
    "W+unquantized(W:x)": {"wgrad": {"x": None}},
    "W+M(W:x)": {"wgrad": {"x": {"centred": True}}},
    "F+D+W+M(W:x)+DHT16(W)": {**ALL, "wgrad": {"x": {"centred": True}, "rotation": DHT16}},
    "W+M(W:dy,W:x)+SR(W:dy)": {
        "wgrad": {"dy": {"centred": True, **SR}, "x": {"centred": True}},
    },
}

OPERANDS = [
    None,
    *(
        Operand(rounding=rounding, scale_rule=rule, groups=groups, centred=centred)
        for centred, rounding, rule, groups in itertools.product(
            (False, True), Rounding, ScaleRule, GroupShape
        )
    ),
]
ROTATIONS = [
    None,
    *(DeterministicHadamard(kind="dht", size=size) for size in (16, 32)),
    *(
        RandomizedHadamard(kind="rht", size=size, signs=signs)
        for size in (16, 32)
        for signs in ("fixed", "redrawn", "mismatched")
    ),
]


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_recipe(name):
    assert Recipe(**NAMES[name]).name == name


def test_recipes_of_wgrad_all_have_names_of_their_own():
    recipes = [
        Recipe(wgrad=Wgrad(dy=dy, x=x, rotation=rotation))
        for dy, x, rotation in itertools.product(OPERANDS[::7], OPERANDS, ROTATIONS)
        if dy or x
    ]
    assert len({recipe.name for recipe in recipes}) == len(recipes)


@st.composite
def recipes(draw):
    fields = {"fprop": ("x", "w"), "dgrad": ("dy", "w"), "wgrad": ("dy", "x")}
    gemms = {}
    for gemm in draw(st.sets(st.sampled_from(list(fields)), min_size=1)):
        left, right = draw(
            st.tuples(st.sampled_from(OPERANDS), st.sampled_from(OPERANDS)).filter(any)
        )
        rotation = draw(st.sampled_from(ROTATIONS))
        gemms[gemm] = {fields[gemm][0]: left, fields[gemm][1]: right, "rotation": rotation}
    return Recipe(**gemms)


@given(recipes(), recipes())
@settings(deadline=None)
def test_two_recipes_share_a_name_only_if_they_are_one(one, other):
    assert (one.name == other.name) == (one == other)
    assert Recipe(**one.model_dump()).name == one.name


def test_defaults_are_those_of_the_method():
    """AMD's scale rule, rounding to nearest, groups along the contraction, signs redrawn."""
    assert Operand() == Operand(rounding="rtne", scale_rule="even", groups="1d", centred=False)
    assert RandomizedHadamard(kind="rht").signs == "redrawn"
    assert Recipe(wgrad={}).gemms["W"].operands == (("dy", Operand()), ("x", Operand()))


def test_only_fp32_is_unquantized():
    assert [name for name in NAMES if not is_quantized(Recipe(**NAMES[name]))] == ["fp32"]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({}, "mxfp4 without a GEMM quantizes nothing; name fprop, dgrad or wgrad"),
        ({"precision": "fp8", "wgrad": {}}, "precision fp8 takes no fprop, dgrad or wgrad"),
        ({"precision": "fp32", "fprop": {}}, "remove them or set precision: mxfp4"),
        ({"wgrad": {"dy": None, "x": None}}, "both operands are null; leave the GEMM out"),
        ({"wgrad": {"w": {}}}, r"wgrad\.w\n.*not permitted"),
        ({"fprop": {"dy": {}}}, r"fprop\.dy\n.*not permitted"),
        ({"wgrad": {"dy": {"round": "sr"}}}, r"wgrad\.dy\.round\n.*not permitted"),
        ({"wgrad": {"dy": {"rounding": "up"}}}, "'rtne', 'sr' or 'sr34'"),
        ({"wgrad": {"dy": {"scale_rule": "round"}}}, "should be 'even', 'floor'"),
        ({"wgrad": {"rotation": {"kind": "dht", "size": 64}}}, "16 or 32"),
        ({"wgrad": {"rotation": {"kind": "dht", "signs": "fixed"}}}, "not permitted"),
        ({"wgrad": {"rotation": {"kind": "fft"}}}, "'dht', 'rht'"),
        (
            {"precision": "fp4", "wgrad": {}},
            "'fp32-reordered', 'bf16', 'fp8', 'fp8-reordered' or 'mxfp4'",
        ),
    ],
)
def test_a_recipe_that_means_nothing_is_refused(recipe, message):
    with pytest.raises(ValidationError, match=message):
        Recipe(**recipe)


# --- the study -----------------------------------------------------------------------------

SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "sequence_tokens": 32,
}
TRAINING = {
    "num_steps": 14,
    "batch_sequences": 2,
    "evaluate_every_steps": 5,
    "evaluation_sequences": 2,
    "checkpoint_every_steps": 5,
}
LADDER = {
    "study": "mxfp4_ladder",
    "arms": ["W"],
    "baselines": ["fp32"],
    "seeds": [0],
    "training": TRAINING,
    "target_step": 10,
}
OUTLIERS = {"study": "mxfp4_outliers", "arms": ["W"], "seeds": [0], "outlier_sizes": [4.0]}
SPEED = {
    "study": "mxfp4_speed",
    "arms": ["W"],
    "baselines": ["fp32"],
    "batch_sequences": 2,
    "num_rounds": 3,
}
DIAGNOSTICS = {
    "study": "mxfp4_diagnostics",
    "arms": ["W"],
    "training": TRAINING,
    "measure_at_steps": [5],
    "num_batches": 2,
}
STUDY = {
    "model": SHAPE,
    "corpus": {"kind": "stdlib"},
    "optimizer": {"learning_rate": 1e-3, "warmup_steps": 1},
    "arms": {"fp32": {"precision": "fp32"}, "W": {"wgrad": {}}},
    "experiments": {"ladder": LADDER},
    "caption": "tiny",
}


def study(**changes):
    return MXFP4(**{**STUDY, **changes})


def with_experiment(experiment, **changes):
    return {"experiments": {"e": {**experiment, **changes}}}


def test_the_study_is_sound():
    assert study().backend == "emulated"
    for experiment in (LADDER, OUTLIERS, SPEED, DIAGNOSTICS):
        study(**with_experiment(experiment))


@pytest.mark.parametrize("name", ["W+SR", "w", "F+D+W", "baseline"])
def test_an_arm_under_another_name_is_refused_with_the_right_one(name):
    arms = {**STUDY["arms"], name: {"wgrad": {"dy": SR}}}
    message = re.escape(f"the arm {name!r} has the recipe of 'W+SR(W:dy)'; rename it")
    with pytest.raises(ValidationError, match=message):
        study(arms=arms)


def test_every_name_is_accepted_as_the_key_of_its_arm():
    assert set(study(arms=NAMES).arms) == set(NAMES)


@pytest.mark.parametrize(
    "experiment",
    [
        {**LADDER, "arms": ["W", "F+D"]},
        {**LADDER, "baselines": ["F+D"]},
        {**OUTLIERS, "arms": ["F+D"]},
        {**SPEED, "baselines": ["F+D"]},
        {**DIAGNOSTICS, "baseline": "F+D"},
    ],
    ids=["arm", "baseline", "outliers", "speed", "diagnostics"],
)
def test_an_arm_that_is_not_listed_is_refused(experiment):
    message = r"experiments\.e names the arm 'F\+D', which is not in arms: W, fp32"
    with pytest.raises(ValidationError, match=message):
        study(**with_experiment(experiment))


@pytest.mark.parametrize(("num_steps", "is_refused"), [(13, True), (14, False), (20, False)])
def test_the_horizon_is_at_least_1_4_times_the_target(num_steps, is_refused):
    training = {**TRAINING, "num_steps": num_steps}
    changes = with_experiment(LADDER, training=training)
    if not is_refused:
        study(**changes)
        return
    with pytest.raises(ValidationError, match=r"num_steps 13 is under 1.4 times target_step 10"):
        study(**changes)


@pytest.mark.parametrize(("given", "step"), [("neither is", None), ("both are", 10)])
def test_a_ladder_has_exactly_one_target(given, step):
    loss = None if step is None else 3.3
    with pytest.raises(ValidationError, match=f"{given} given of target_step and target_loss; na"):
        study(**with_experiment(LADDER, target_step=step, target_loss=loss))
    study(**with_experiment(LADDER, target_step=None, target_loss=3.3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 72}, "hidden_size is 72; .* multiple of 32"),
        ({"intermediate_size": 100}, "intermediate_size is 100; .* multiple of 32"),
        ({"num_attention_heads": 64}, "hidden_size 64 does not give 64 heads of an even size"),
        ({"num_attention_heads": 3}, "hidden_size 64 does not give 3 heads of an even size"),
        ({"num_key_value_heads": 3}, "4 attention heads cannot share 3 key-value heads evenly"),
        ({"num_key_value_heads": 1}, "num_key_value_heads 1 makes a projection .* multiple of 32"),
        ({"num_layers": 0}, "greater than 0"),
        ({"rope": 1}, "not permitted"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        LlamaShape(**{**SHAPE, **changes})


def test_tokens_of_a_step_come_in_groups_where_wgrad_sums_them():
    odd = {**SHAPE, "sequence_tokens": 24}
    message = "a step has 48 tokens a process, .* by 32; make batch_sequences x"
    for experiment in (LADDER, SPEED, DIAGNOSTICS):
        with pytest.raises(ValidationError, match=message):
            study(model=odd, **with_experiment(experiment))
    arms = {"fp32": {"precision": "fp32"}, "F+D": {"fprop": {}, "dgrad": {}}}
    study(model=odd, arms=arms, **with_experiment(LADDER, arms=["F+D"]))


def test_a_batch_is_shared_evenly_by_processes():
    study(num_processes=2)
    with pytest.raises(ValidationError, match="batch_sequences 2 cannot be shared by 3 processes"):
        study(num_processes=3)
    with pytest.raises(ValidationError, match="a step has 16 tokens a process"):
        study(num_processes=2, model={**SHAPE, "sequence_tokens": 16})


def test_all_problems_are_listed_at_once():
    experiments = {
        "one": {**LADDER, "arms": ["F"]},
        "two": {**SPEED, "batch_sequences": 3},
    }
    with pytest.raises(ValidationError) as refusal:
        study(experiments=experiments, num_processes=2)
    assert "experiments.one names the arm 'F'" in str(refusal.value)
    assert "experiments.two: batch_sequences 3 cannot be shared" in str(refusal.value)


def test_the_arms_that_an_experiment_names_are_each_named_once():
    def arms_of(experiment, **changes):
        return named_arms(study(**with_experiment(experiment, **changes)).experiments["e"])

    assert arms_of(LADDER, arms=["W", "fp32", "W"]) == ["fp32", "W"]
    assert arms_of(DIAGNOSTICS) == ["fp32", "W"]
    assert arms_of(SPEED) == ["fp32", "W"]
    assert arms_of(OUTLIERS) == ["W"]
