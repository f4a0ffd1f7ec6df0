"""Errors of GEMMs on shared operands: each statistic, and the measurement along a training."""

import gc
import math
import weakref

import numpy as np
import pytest
import torch

from blockwise.artifacts import read_model, write_model
from blockwise.config.corpora import StdlibCorpus
from blockwise.config.mxfp4 import (
    MXFP4,
    DiagnosticsExperiment,
    LlamaShape,
    Optimizer,
    Training,
)
from blockwise.config.recipes import (
    DeterministicHadamard,
    Dgrad,
    Fprop,
    Operand,
    RandomizedHadamard,
    Recipe,
    Wgrad,
)
from blockwise.errors import ConfigError
from blockwise.mxfp4.arithmetic import PLACES, Arithmetic
from blockwise.mxfp4.corpus import CorpusCard, TokenCorpus
from blockwise.mxfp4.diagnostics import ErrorProbe, diagnose
from blockwise.mxfp4.gemm_errors import (
    FLOAT32,
    operand_statistics,
    part_in,
    product_errors,
)
from blockwise.mxfp4.layer_errors import StepErrors
from blockwise.mxfp4.layer_operands import linear_names, visit_operands
from blockwise.mxfp4.matrix_statistics import kurtosis
from blockwise.mxfp4.model import Llama, initialise
from blockwise.mxfp4.operand import prepare_operand
from blockwise.mxfp4.records import Diagnostics

SHAPE = LlamaShape(
    hidden_size=32,
    intermediate_size=64,
    num_layers=2,
    num_attention_heads=1,
    num_key_value_heads=1,
    sequence_tokens=16,
)
KEY = torch.tensor(7, dtype=torch.int32)
SR = Operand(rounding="sr", scale_rule="rceil")
FDW = Recipe(fprop=Fprop(), dgrad=Dgrad(), wgrad=Wgrad())
W = Recipe(wgrad=Wgrad())
W_SR = Recipe(wgrad=Wgrad(dy=SR, x=SR))
W_RHT = Recipe(wgrad=Wgrad(rotation=RandomizedHadamard(kind="rht")))
FP32, FP8 = Recipe(precision="fp32"), Recipe(precision="fp8")
ARMS = {"F+D+W": FDW, "W": W, "W+SR": W_SR, "W+RHT16(W)": W_RHT, "fp8": FP8, "fp32": FP32}
DHT = DeterministicHadamard(kind="dht")


def operands(seed=0, tokens=64, size=32):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(shape, generator=generator)
        for shape in ((tokens, size), (size, size), (tokens, size))
    )


def measured(arms, batches, keys=None):
    """Rows of one layer by GEMM and arm."""
    found = StepErrors(arms, is_compiled=False)
    for index, batch in enumerate(batches):
        key = torch.tensor(index if keys is None else keys, dtype=torch.int32)
        found.begin_batch({"layer": key}, with_operands=index < 2)
        found.add("layer", *batch)
    return {(row.gemm, row.arm): row for row in found.rows("e", 3, ["layer"])}


def model() -> Llama:
    llama = Llama(SHAPE, 256)
    initialise(llama, 0)
    return llama


def corpus() -> TokenCorpus:
    tokens = np.random.default_rng(0).integers(97, 123, 4096)
    card = CorpusCard(
        source="letters",
        tokenizer="bytes",
        vocab_size=256,
        dtype="uint16",
        num_train_tokens=tokens.size,
        num_validation_tokens=tokens.size,
        train_sha256="t",
        validation_sha256="v",
    )
    return TokenCorpus(card, tokens, tokens)


def experiment(**changes) -> DiagnosticsExperiment:
    training = Training(
        num_steps=4,
        batch_sequences=2,
        evaluate_every_steps=4,
        evaluation_sequences=2,
        checkpoint_every_steps=4,
    )
    values = {
        "study": "mxfp4_diagnostics",
        "arms": [name for name in ARMS if name != "fp32"],
        "training": training,
        "measure_at_steps": [0, 4],
        "num_batches": 3,
    }
    return DiagnosticsExperiment(**{**values, **changes})


def probe(**changes) -> ErrorProbe:
    text = corpus()
    return ErrorProbe(
        "e",
        experiment(**changes),
        ARMS,
        ["layers.*"],
        lambda step: text.train_batch(step, 0, 2, 16),
        is_compiled=False,
    )


def test_errors_of_a_product_by_hand():
    found = product_errors(torch.tensor([[3.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    assert found.error_norm == 4.0
    assert found.relative_error == pytest.approx(4 / 5)
    assert found.cosine == pytest.approx(9 / (3 * 5))
    assert found.shrinkage == pytest.approx(1 - 9 / 25)


def test_a_product_that_vanishes_has_lost_all_and_points_nowhere():
    found = product_errors(torch.zeros(2, 2), torch.ones(2, 2))
    assert (found.relative_error, found.cosine, found.shrinkage) == (1.0, 0.0, 1.0)


@pytest.mark.parametrize("letter", ["F", "D", "W"])
def test_an_arm_like_float32_has_no_error(letter):
    x, w, dy = operands()
    pair = {"F": (x, w), "D": (dy, w), "W": (dy, x)}[letter]
    product = Arithmetic(FP32).product(letter, *pair, KEY)
    found = product_errors(product, FLOAT32.product(letter, *pair, KEY))
    assert (found.error_norm, found.shrinkage) == (0.0, 0.0)
    assert found.cosine == pytest.approx(1.0)


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_errors_without_a_scale_are_refused(value):
    with pytest.raises(ConfigError, match=r"norm .*finite one above 0; measure at another step"):
        product_errors(torch.ones(2, 2), torch.full((2, 2), value))


def test_shares_of_an_operand_by_hand():
    row = torch.zeros(1, 32)
    row[0, :4] = torch.tensor([7.0, 0.2, -0.3, 5.0])  # floor: scale 1, so 7 is beyond 6
    floor = Operand(scale_rule="floor")
    recipe = Recipe(fprop=Fprop(x=floor, w=None))
    left, right = operand_statistics("F", (row, row), recipe, KEY)
    assert left.underflow_frac == 1 / 32  # 0.2 is nearer to 0 than to 0.5; zeros were zero
    assert left.saturation_frac == 1 / 32
    assert (right.underflow_frac, right.saturation_frac) == (None, None)
    assert right.kurtosis == pytest.approx(left.kurtosis)


def test_kurtosis_by_hand():
    assert kurtosis(torch.tensor([[1.0, -1.0], [-1.0, 1.0]])) == pytest.approx(1.0)
    assert kurtosis(torch.full((4, 4), 2.5)) == 0.0
    normal = torch.randn(512, 512, generator=torch.Generator().manual_seed(0))
    assert kurtosis(normal) == pytest.approx(3.0, abs=0.1)
    assert kurtosis(normal * 1e-12) == pytest.approx(kurtosis(normal))


def test_operands_are_described_after_their_rotation():
    # Along tokens a constant becomes one coefficient in 16: 4 with probability 1/16, else 0.
    constant = torch.ones(64, 32)
    recipe = Recipe(wgrad=Wgrad(rotation=DHT))
    left, _ = operand_statistics("W", (constant, constant), recipe, KEY)
    variance = 1 / 16 * 15 / 16
    assert left.kurtosis == pytest.approx((1 - 3 * variance) / variance, rel=1e-4)


def test_statistics_are_of_the_values_that_the_product_takes():
    x, _, dy = operands()
    wgrad = Wgrad(dy=SR, x=SR, rotation=RandomizedHadamard(kind="rht"))
    both = operand_statistics("W", (dy, x), Recipe(wgrad=wgrad), KEY)
    for values, place, found in zip((dy, x), PLACES["W"], both, strict=True):
        prepared = prepare_operand(values, place, SR, wgrad.rotation, KEY)
        assert 0 < found.underflow_frac == int((prepared == 0).sum()) / prepared.numel()


def test_what_acts_in_a_gemm():
    assert part_in("F", FDW) == part_in("F", Recipe(fprop=Fprop(), wgrad=Wgrad(rotation=DHT)))
    assert part_in("F", W) is None
    assert part_in("W", FP32) is None
    assert part_in("D", FP8) == FP8


def test_rows_are_of_the_gemms_that_an_arm_does_not_multiply_in_float32():
    rows = measured(ARMS, [operands()])
    assert {arm for gemm, arm in rows if gemm == "F"} == {"F+D+W", "fp8"}
    assert {arm for gemm, arm in rows if gemm == "W"} == set(ARMS) - {"fp32"}
    fp8 = rows["W", "fp8"]
    assert fp8.underflow_frac == fp8.saturation_frac == [None, None]
    assert 0 < fp8.relative_error < rows["W", "W"].relative_error
    assert (rows["F", "fp8"].gradient_to_noise, rows["D", "fp8"].gradient_to_noise) == (None, None)


def test_all_arms_see_the_same_tensors_and_random_numbers():
    twins = {"one": W_SR, "other": W_SR, "more": Recipe(fprop=Fprop(), wgrad=W_SR.wgrad)}
    rows = measured(twins, [operands(seed) for seed in range(3)])
    same = [rows["W", arm].model_dump(exclude={"arm"}) for arm in twins]
    assert same[0] == same[1] == same[2]


def test_an_error_that_repeats_is_systematic_and_one_that_is_drawn_anew_averages_out():
    batches = [operands()] * 16
    arms = {"nearest": Recipe(wgrad=Wgrad(dy=Operand(), x=None)), "SR": W_SR}
    rows = measured(arms, batches)
    nearest, drawn = rows["W", "nearest"], rows["W", "SR"]
    assert nearest.systematic_error == pytest.approx(nearest.relative_error, rel=1e-4)
    assert drawn.systematic_error < 0.5 * drawn.relative_error  # 1/4 where all is independent
    repeated = measured(arms, batches, keys=5)["W", "SR"]
    assert repeated.systematic_error == pytest.approx(repeated.relative_error, rel=1e-4)


def test_the_mean_of_tokens_is_the_systematic_part_of_fprop():
    x, w, dy = operands()
    (row,) = measured({"F": Recipe(fprop=Fprop())}, [(x, w, dy)]).values()
    key = torch.tensor(0, dtype=torch.int32)
    product = Arithmetic(FDW).product("F", x, w, key).mean(0)
    exact = (x @ w.T).mean(0)
    assert row.systematic_error == pytest.approx(float((product - exact).norm() / exact.norm()))


def test_gradient_to_noise_is_of_wgrad_and_needs_noise():
    rows = measured({"F+D+W": FDW}, [operands()])
    assert rows["W", "F+D+W"].gradient_to_noise == pytest.approx(
        1 / rows["W", "F+D+W"].relative_error
    )
    exact = torch.eye(64, 32)
    row = measured({"W": W}, [(exact, torch.eye(32), exact)])["W", "W"]
    assert (row.relative_error, row.gradient_to_noise) == (0.0, None)


def test_only_sums_are_kept_of_a_batch():
    found = StepErrors(ARMS, is_compiled=False)

    def tensors():
        gc.collect()
        return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())

    def add(seed):
        batch = operands(seed)
        found.begin_batch({"layer": KEY}, with_operands=True)
        found.add("layer", *batch)
        return [weakref.ref(one) for one in batch]

    add(0)
    before = tensors()
    watched = [one for seed in range(1, 4) for one in add(seed)]
    assert tensors() == before
    assert not any(one() is not None for one in watched)


def test_the_operands_of_a_layer_give_its_gradient_and_nothing_is_left_behind():
    llama, tokens = model(), corpus().train_batch(0, 0, 2, 16)
    layers = linear_names(llama, ["layers.*"])
    seen = {}

    def visit(name, x, w, dy):
        seen[name] = (w, dy.T @ x)

    parameters = list(llama.parameters())
    assert visit_operands(llama, lambda: (llama.loss(tokens), parameters), layers, visit)
    assert all(parameter.grad is None for parameter in llama.parameters())
    llama.loss(tokens).backward()
    assert len(seen) == 14
    for name, (weight, gradient) in seen.items():
        linear = llama.get_submodule(name)
        assert torch.equal(weight, linear.weight)
        torch.testing.assert_close(gradient, linear.weight.grad)
    seen.clear()
    llama.loss(tokens)
    assert not seen


def test_a_probe_measures_its_steps_once_and_the_same_again():
    first, again, llama = probe(), probe(), model()
    for step in (0, 1, 4, 4):  # the trainer may tell the step of a divergence twice
        first(step, llama)
    again(0, llama)
    again(4, llama)
    assert first.errors == again.errors
    assert not first.unmeasured_steps
    rows = [(row.step, row.layer, row.gemm, row.arm) for row in first.errors]
    assert len(set(rows)) == len(rows) == 2 * 14 * (2 + 2 + 5)
    assert first.errors[0].layer == "layers.0.attention.query"


def test_every_batch_and_layer_has_random_numbers_of_its_own(monkeypatch):
    keys = []
    monkeypatch.setattr(
        StepErrors,
        "begin_batch",
        lambda self, drawn, with_operands: keys.extend(int(key) for key in drawn.values()),
    )
    monkeypatch.setattr(StepErrors, "add", lambda *told: None)
    monkeypatch.setattr(StepErrors, "rows", lambda *told: [])
    one, llama = probe(), model()
    one(0, llama)
    one(4, llama)
    assert len(set(keys)) == len(keys) == 2 * 3 * 14


def test_without_a_finite_loss_nothing_is_measured():
    llama, one = model(), probe()
    with torch.no_grad():
        llama.head.weight.fill_(math.nan)
    one(0, llama)
    assert (one.errors, one.unmeasured_steps) == ([], {0, 4})


def test_a_layer_without_a_product_is_named():
    llama = model()
    with torch.no_grad():
        llama.layers[1].mlp.down.weight.zero_()
    with pytest.raises(ConfigError, match=r"layers\.1\.mlp\.down: a float32 product has the norm"):
        probe()(0, llama)


def test_no_matching_layer_is_refused():
    one = ErrorProbe("e", experiment(), ARMS, ["no.*"], lambda step: None, is_compiled=False)
    with pytest.raises(ConfigError, match=r"no linear layer matches \['no\.\*'\]; mend"):
        one(0, model())


def study(**changes) -> MXFP4:
    arms = {recipe.name: recipe for recipe in ARMS.values()}
    one = experiment(**{"arms": ["F+D+W", "W+RHT16(W)", "fp8"], **changes})
    return MXFP4(
        model=SHAPE,
        corpus=StdlibCorpus(kind="stdlib"),
        optimizer=Optimizer(learning_rate=1e-3, warmup_steps=2),
        arms=arms,
        experiments={"errors": one},
        compiled=False,
        caption="tiny",
    )


def test_a_diagnosis_follows_the_training_of_the_baseline(tmp_path):
    found = diagnose(study(), "errors", corpus())
    assert len(found.errors) == 2 * 14 * (2 + 2 + 3)
    early, late = ([row for row in found.errors if row.step == step] for step in (0, 4))
    assert [row.relative_error for row in early] != [row.relative_error for row in late]
    assert found.origin.device == "cpu"
    write_model(tmp_path / "errors.json", found)
    assert read_model(tmp_path / "errors.json", Diagnostics) == found


def test_steps_beyond_the_training_are_refused():
    with pytest.raises(ValueError, match="measure_at_steps 5 is beyond num_steps 4; lower it"):
        study(measure_at_steps=[0, 5])


def test_an_unknown_experiment_is_refused():
    with pytest.raises(ConfigError, match=r"'nothing' is not in .*this job takes one of: errors"):
        diagnose(study(), "nothing", corpus())
