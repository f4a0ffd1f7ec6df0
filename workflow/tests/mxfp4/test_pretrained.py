"""Measurements on a published model: a tiny one, made here, whose numbers can be checked."""

import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

import published_model
from blockwise.artifacts import read_model, write_model
from blockwise.config.pretrained import LayerErrorsExperiment
from blockwise.errors import ConfigError
from blockwise.models.prepared_model import PreparedModel
from blockwise.mxfp4 import descent as descent_job
from blockwise.mxfp4 import pretrained_errors
from blockwise.mxfp4.arithmetic import Arithmetic
from blockwise.mxfp4.averaged_gradients import Weights
from blockwise.mxfp4.descent import StartText, descend, spec_of
from blockwise.mxfp4.layer_operands import visit_operands
from blockwise.mxfp4.pretrained import load, prepare
from blockwise.mxfp4.pretrained_errors import layers_of_part, measure_part, measured_layers
from blockwise.mxfp4.records import DescentOutput, Diagnostics
from blockwise.mxfp4.shared_passes import MAX_HELD_ARMS, pass_of, shared_passes
from published_model import ARMS, LINEARS
from training_records import store_profile


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A study and the folder in which its model is ready."""
    folder = tmp_path_factory.mktemp("published")
    study = published_model.study(folder)
    prepare(study.pretrained, folder / "ready", folder / "cache")
    return study, folder / "ready"


@pytest.fixture
def published(prepared):
    return load(*prepared)


@pytest.fixture(scope="module")
def start(prepared):
    """One finished start."""
    study, folder = prepared
    return descend(study, "descent", 0, load(study, folder))


def batch(published, index=0):
    return published.corpus.train_batch(index, 0, 1, 32)


def test_its_loss_is_that_of_the_model_itself(published):
    tokens = batch(published)
    loss, (embedded,) = published.loss(tokens)
    logits = published.model(input_ids=tokens[:, :-1]).logits
    expected = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    torch.testing.assert_close(loss, expected)
    assert embedded.requires_grad
    assert not any(one.requires_grad for one in published.model.parameters())


def test_a_pass_without_gradients_of_weights_shows_the_gradient_of_every_weight(published):
    tokens, found = batch(published), {}
    layers = list(published.layers)
    assert len(layers) == LINEARS
    seen = visit_operands(
        published.model,
        lambda: published.loss(tokens),
        layers,
        lambda name, x, w, dy: found.update({name: dy.T @ x}),
    )
    assert seen
    published.model.requires_grad_(True)
    published.loss(tokens)[0].backward()
    for name in layers:
        torch.testing.assert_close(found[name], published.model.get_submodule(name).weight.grad)


def test_parts_cover_the_layers_and_give_the_numbers_of_the_whole(prepared, published):
    study, _ = prepared
    parts = [measure_part(study, "errors", published, part) for part in range(2)]
    experiment = study.experiments["errors"].model_copy(update={"num_parts": 1})
    whole = measure_part(
        study.model_copy(update={"experiments": {"errors": experiment}}), "errors", published, 0
    )
    joined = [error for part in parts for error in part.errors]
    assert sorted(joined, key=str) == sorted(whole.errors, key=str)
    assert {one.layer for one in joined} == set(published.layers)
    assert {(one.layer, one.operand) for part in parts for one in part.operands} == {
        (layer, operand) for layer in published.layers for operand in ("x", "w", "dy")
    }
    assert {one.arm for one in joined if one.gemm == "F"} == {"F+D+W", "fp8"}
    assert all(0 < one.relative_error < 1 for one in joined)


def test_more_parts_than_layers_are_refused():
    with pytest.raises(ConfigError, match="num_parts is 3 and there are 2 layers"):
        layers_of_part(["a", "b"], 0, 3)
    parts = [layers_of_part(list("abcdefg"), part, 3) for part in range(3)]
    assert parts == [["a", "b"], ["c", "d"], ["e", "f", "g"]]


def test_patterns_that_name_no_layer_are_refused(published):
    assert len(measured_layers(published, ["*.0.*"])) == LINEARS / 2
    with pytest.raises(ConfigError, match=r"no layer matches .*nothing.*model\.layers\.0"):
        measured_layers(published, ["nothing"])


def test_layers_of_the_model_must_match(prepared):
    study, folder = prepared
    other = study.pretrained.model_copy(update={"layers": ["nothing.*"]})
    with pytest.raises(ConfigError, match=r"matches \['nothing\.\*'\]; mend mxfp4\.pretrained"):
        load(study.model_copy(update={"pretrained": other}), folder)


def test_arms_that_differ_in_wgrad_alone_share_a_pass():
    groups = shared_passes(ARMS)
    by_arm = {arm: index for index, (_, arms) in enumerate(groups) for arm in arms}
    assert by_arm["fp32"] == by_arm["W"] == by_arm["W+DHT16(W)"] == by_arm["W+M(W:x)"]
    assert by_arm["F+D+W"] == by_arm["F+D+W+SR(W:dy)"]
    assert len({by_arm[arm] for arm in ("fp32", "fp8", "fp32-reordered", "F", "F+D+W")}) == 5
    assert pass_of(ARMS["fp8"]) == ARMS["fp8"]
    many = {f"arm {number}": ARMS["W"] for number in range(MAX_HELD_ARMS + 1)}
    assert [len(arms) for _, arms in shared_passes(many)] == [MAX_HELD_ARMS, 1]


def test_the_first_baseline_is_its_own_direction_and_the_null_arm_nearly_so(start):
    fp32, null = start.arms["fp32"], start.arms["fp32-reordered"]
    assert fp32.cosine == pytest.approx(1, abs=1e-6)
    assert null.cosine == pytest.approx(1, abs=1e-5)
    assert null.stepped_loss == pytest.approx(fp32.stepped_loss, abs=1e-5)
    assert (null.gradient_norm, null.stepped_loss) != (fp32.gradient_norm, fp32.stepped_loss)
    assert set(start.arms) == {"fp32", *published_model.DESCENT["references"]} | set(
        published_model.DESCENT["arms"]
    )


def test_a_step_down_the_gradient_lowers_the_loss_and_quantizing_bends_it(start):
    assert start.arms["fp32"].stepped_loss < start.held_out_loss
    cosines = {arm: one.cosine for arm, one in start.arms.items()}
    assert 0 < cosines["F+D+W"] < cosines["W"] < 1 - 1e-4
    assert start.arms["W"].train_loss == start.arms["fp32"].train_loss  # one pass for both
    assert start.arms["F"].train_loss != start.arms["fp32"].train_loss
    assert start.num_layers == LINEARS


def test_a_gradient_is_the_mean_over_micro_batches(prepared, start):
    study, folder = prepared
    published = load(study, folder)
    experiment = study.experiments["descent"]
    text = StartText.of(experiment, 0, 32, published, "cpu")
    published.model.requires_grad_(True)
    for tokens in text.micro_batches:
        published.loss(tokens)[0].backward()
    squares = sum(
        float((published.model.get_submodule(name).weight.grad / 3).square().sum())
        for name in published.layers
    )
    assert start.arms["fp32"].gradient_norm == pytest.approx(squares**0.5, rel=1e-4)


def test_starts_share_no_held_out_text(prepared, published):
    experiment = prepared[0].experiments["descent"]
    one, other = (StartText.of(experiment, start, 32, published, "cpu") for start in (0, 1))
    rows = {tuple(row.tolist()) for text in (one, other) for row in text.held_out}
    assert len(rows) == 4
    assert not torch.equal(one.micro_batches[0], other.micro_batches[0])


def test_weights_go_the_same_length_and_come_back_to_the_last_bit(published):
    weights = Weights.of(published.model, published.layers)
    assert weights.num() == sum(one.numel() for one in weights.parameters.values())
    generator = torch.Generator().manual_seed(0)
    gradient = {
        name: torch.randn(one.shape, generator=generator) for name, one in weights.start.items()
    }
    for is_signed in (False, True):
        weights.step(gradient, 0.5, is_signed=is_signed)
        moved = [weights.parameters[name] - one for name, one in weights.start.items()]
        assert sum(float(one.square().sum()) for one in moved) ** 0.5 == pytest.approx(0.5, 1e-4)
        weights.restore()
        assert all(torch.equal(weights.parameters[n], one) for n, one in weights.start.items())
    zero = {name: torch.zeros_like(one) for name, one in weights.start.items()}
    with pytest.raises(ValueError, match="a gradient of the norm 0"):
        weights.step(zero, 0.5)


@pytest.mark.parametrize("letter", ["F", "D", "W"])
def test_the_null_arm_sums_in_another_order(letter):
    generator = torch.Generator().manual_seed(0)
    shapes = {"F": ((64, 96), (32, 96)), "D": ((64, 96), (96, 32)), "W": ((96, 64), (96, 32))}
    left, right = (torch.randn(shape, generator=generator) for shape in shapes[letter])
    key = torch.tensor(0, dtype=torch.int32)
    exact, null = (
        Arithmetic(ARMS[arm]).product(letter, left, right, key)
        for arm in ("fp32", "fp32-reordered")
    )
    torch.testing.assert_close(exact, null)
    assert not torch.equal(exact, null)


def test_jobs_leave_their_files_and_a_finished_start_is_not_computed_again(
    prepared, tmp_path, monkeypatch
):
    study, folder = prepared
    config = store_profile(tmp_path, study)
    shared = ["--config", str(config), "--pretrained", str(folder)]

    def run(module, *words):
        monkeypatch.setattr(sys, "argv", ["job", *shared, *words])
        module.main()

    errors = tmp_path / "errors.json"
    run(pretrained_errors, "--experiment", "errors", "--part", "1", "--output", str(errors))
    assert read_model(errors, Diagnostics).experiment == "errors"
    words = ["--experiment", "descent", "--start", "1", "--records", str(tmp_path / "records")]
    stores = [str(tmp_path / name) for name in ("cells", "cells", "other")]
    outputs = [str(tmp_path / f"{name}.json") for name in ("one", "again", "elsewhere")]
    for store, output in zip(stores, outputs, strict=True):
        run(descent_job, *words, "--store", store, "--output", output)
        monkeypatch.setattr(descent_job, "descend", None)
    one, again, elsewhere = (read_model(Path(output), DescentOutput) for output in outputs)
    assert one == again == elsewhere
    assert len(list(tmp_path.rglob(f"{one.start.key}.json"))) == 3  # two stores and the records
    assert (one.experiment, one.start.spec.start) == ("descent", 1)


def test_the_key_of_a_start_follows_what_it_measures(prepared, published):
    study, _ = prepared
    experiment = study.experiments["descent"]
    keys = {
        spec_of(study, changed, start, published).key
        for changed, start in (
            (experiment, 0),
            (experiment, 1),
            (experiment.model_copy(update={"arms": ["W"]}), 0),
            (experiment.model_copy(update={"step_norm_frac": 0.5}), 0),
        )
    }
    assert len(keys) == 4


def test_what_cannot_be_measured_is_refused_before_the_first_job(tmp_path):
    with pytest.raises(ValueError, match="ratios names F, which arms does not"):
        LayerErrorsExperiment(**{**published_model.LAYER_ERRORS, "ratios": [["F", "fp8"]]})
    with pytest.raises(ValueError, match=r"starts \[0, 0\] names one twice"):
        published_model.study(tmp_path / "a", d={**published_model.DESCENT, "starts": [0, 0]})
    content = published_model.study(tmp_path / "b").model_dump(mode="json")
    with pytest.raises(ValueError, match=r"experiments\.errors measures on a published model"):
        type(published_model.study(tmp_path / "c")).model_validate({**content, "pretrained": None})


def test_a_folder_without_model_files_is_refused(prepared, tmp_path):
    pretrained = prepared[0].pretrained
    source = pretrained.model.model_copy(update={"path": str(tmp_path)})
    with pytest.raises(
        ConfigError, match=r"mxfp4\.pretrained\.model\.path: .* has no config\.json"
    ):
        prepare(pretrained.model_copy(update={"model": source}), tmp_path / "to", tmp_path)


def test_a_model_that_is_no_causal_language_model_is_refused(prepared, tmp_path):
    study, folder = prepared
    record = read_model(folder / "model.json", PreparedModel)
    write_model(tmp_path / "model.json", record.model_copy(update={"path": str(tmp_path)}))
    with pytest.raises(ConfigError, match=r"cannot load .*Name another model in mxfp4"):
        load(study, tmp_path)
