"""Step times: who runs, in which order, and that different forms do the same work."""

import importlib

import pytest
import torch

from blockwise.config.corpora import StdlibCorpus
from blockwise.config.mxfp4 import MXFP4, LlamaShape, Optimizer, SpeedExperiment
from blockwise.config.recipes import Dgrad, Fprop, Operand, Recipe, Wgrad
from blockwise.errors import ConfigError
from blockwise.mxfp4 import arithmetic, speed
from blockwise.mxfp4.arithmetic import PLACES
from blockwise.mxfp4.operand import prepare_operand
from blockwise.mxfp4.speed import Form, forms_of, load_torchao, time_steps

FDW = Recipe(fprop=Fprop(), dgrad=Dgrad(), wgrad=Wgrad())
ARMS = {
    recipe.name: recipe
    for recipe in (Recipe(precision="fp32"), Recipe(precision="bf16"), FDW, Recipe(wgrad=Wgrad()))
}
EXPERIMENT = SpeedExperiment(
    study="mxfp4_speed",
    arms=["F+D+W", "W"],
    baselines=["fp32", "bf16"],
    batch_sequences=2,
    num_rounds=3,
)


def study(**changes) -> MXFP4:
    shape = LlamaShape(
        hidden_size=32,
        intermediate_size=64,
        num_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        sequence_tokens=32,
    )
    values = {
        "model": shape,
        "corpus": StdlibCorpus(kind="stdlib"),
        "optimizer": Optimizer(learning_rate=1e-3, warmup_steps=2),
        "arms": ARMS,
        "experiments": {"speed": EXPERIMENT},
        "caption": "tiny",
        **changes,
    }
    return MXFP4(**values)


@pytest.fixture
def no_torchao(monkeypatch):
    load = importlib.import_module

    def refuse(name):
        if name.startswith("torchao"):
            raise ImportError(name)
        return load(name)

    monkeypatch.setattr(importlib, "import_module", refuse)


@pytest.fixture
def uncompiled(monkeypatch):
    """Forms as they are named; compiling takes longer than a test may."""
    monkeypatch.setattr(arithmetic, "compiled_prepare", lambda: prepare_operand)


def test_one_arm_is_timed_in_every_form():
    labels = [form.label for form in forms_of(study(), EXPERIMENT, with_torchao=True)]
    assert labels == [
        "fp32 (plain, eager)",
        "bf16 (ours, eager)",
        "F+D+W (ours, compiled)",
        "F+D+W (ours, eager)",
        "F+D+W (torchao, eager)",
        "W (ours, compiled)",
    ]
    fp8 = EXPERIMENT.model_copy(update={"baselines": ["fp32", "fp8"], "arms": ["W"]})
    assert Form("fp8", "ours, compiled") in forms_of(
        study(arms={**ARMS, "fp8": {"precision": "fp8"}}), fp8, with_torchao=False
    )
    eager = forms_of(study(compiled=False), EXPERIMENT, with_torchao=False)
    assert [form.form for form in eager if form.arm == "F+D+W"] == ["ours, eager"]


def test_every_form_takes_one_step_a_round_in_a_drawn_order(uncompiled, no_torchao):
    threads = torch.get_num_threads()
    found = time_steps(study(), "speed", EXPERIMENT, vocab_size=64)
    labels = {f"{one.arm} ({one.form})" for one in found.times}
    assert len(labels) == len(found.times) == 5
    assert len(found.order) == 3  # without the warm-up
    assert all(len(one) == 5 and set(one) == labels for one in found.order)
    assert len({tuple(one) for one in found.order}) > 1
    assert all(len(one.step_s) == 3 and min(one.step_s) > 0 for one in found.times)
    assert (found.num_threads, found.tokens_per_step) == (1, 64)
    assert torch.get_num_threads() == threads


def test_the_order_is_the_same_in_every_run(uncompiled, no_torchao):
    first, again = (time_steps(study(), "speed", EXPERIMENT, 64).order for _ in range(2))
    assert first == again


def test_without_torchao_its_row_is_left_out_and_that_is_said(uncompiled, no_torchao, capsys):
    found = time_steps(study(), "speed", EXPERIMENT, 64)
    assert not any("torchao" in one.form for one in found.times)
    assert (
        "torchao is not installed, so F+D+W (torchao, eager) is left out" in capsys.readouterr()[0]
    )


def test_all_forms_of_an_arm_do_the_same_work(uncompiled, monkeypatch):
    pytest.importorskip("torchao")
    losses = {}
    untimed = speed._timed_step

    def step(form, trainer):
        step_s = untimed(form, trainer)
        losses.setdefault(form, []).append(trainer.progress.train_losses[-1])
        return step_s

    monkeypatch.setattr(speed, "_timed_step", step)
    found = time_steps(study(), "speed", EXPERIMENT, 64)
    assert "torchao" in found.origin.packages
    first = {form.arm: one[0] for form, one in losses.items()}
    assert first["W"] == pytest.approx(first["fp32"])  # the same weights and tokens
    compiled, eager, torchao = (one for form, one in losses.items() if form.arm == "F+D+W")
    assert compiled == eager == pytest.approx(torchao, rel=1e-5)


@pytest.mark.parametrize("place", [*PLACES["F"], *PLACES["D"], *PLACES["W"]])
def test_the_emulation_of_torchao_gives_the_same_bits(place):
    pytest.importorskip("torchao")
    values = torch.randn(64, 96, generator=torch.Generator().manual_seed(1))
    told = (values, place, Operand(), None, torch.tensor(0, dtype=torch.int32))
    assert torch.equal(load_torchao()(*told), prepare_operand(*told))


def test_a_step_that_does_not_end_is_refused(uncompiled, no_torchao):
    wild = study(optimizer=Optimizer(learning_rate=1e30, warmup_steps=0, gradient_clip_norm=1e30))
    with pytest.raises(ConfigError, match=r"took no step after \d+, .* lower mxfp4\.optimizer"):
        time_steps(wild, "speed", EXPERIMENT, 64)
