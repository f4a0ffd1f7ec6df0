"""Training runs: equal starts, resumable steps, divergence as a result."""

import math
import shutil

import numpy as np
import pytest
import torch

from blockwise.config.mxfp4 import LlamaShape, Optimizer, Training
from blockwise.config.recipes import Recipe
from blockwise.errors import ArtifactError
from blockwise.mxfp4 import model
from blockwise.mxfp4.linear import MXFP4Linear
from blockwise.mxfp4.records import RunSpec, TrainingRun
from blockwise.mxfp4.train import Trainer, train

SHAPE = LlamaShape(
    hidden_size=32,
    intermediate_size=64,
    num_layers=2,
    num_attention_heads=1,
    num_key_value_heads=1,
    sequence_tokens=16,
)
WIDE = SHAPE.model_copy(update={"hidden_size": 128, "intermediate_size": 256})
STOCHASTIC = Recipe(wgrad={"dy": {"rounding": "sr"}, "rotation": {"kind": "rht"}})


def spec(recipe=STOCHASTIC, **changes) -> RunSpec:
    training = {
        "num_steps": 30,
        "batch_sequences": 4,
        "evaluate_every_steps": 10,
        "evaluation_sequences": 4,
        "checkpoint_every_steps": 7,
        **changes.pop("training", {}),
    }
    values = {
        "model": SHAPE,
        "vocab_size": 256,
        "corpus_digest": "c",
        "tokenizer": "bytes",
        "optimizer": Optimizer(learning_rate=3e-3, warmup_steps=3),
        "recipe": recipe,
        "training": Training(**training),
        "converted": ["layers.*"],
        "backend": "emulated",
        "device": "cpu",
        "num_processes": 1,
        "activation_checkpointing": False,
        "trainer": "own",
        "seed": 0,
        "code_digest": "d",
        "torch_version": "t",
    }
    return RunSpec(**{**values, **changes})


class Words:
    """A corpus of a few repeated bytes."""

    def train_batch(self, step, seed, num_sequences, sequence_tokens, num_repeated=None):
        step = step if num_repeated is None else step % num_repeated
        numbers = np.random.default_rng((seed, step)).integers(97, 101, num_sequences)
        rows = [(np.arange(sequence_tokens + 1) % 3) + number for number in numbers]
        return torch.tensor(np.stack(rows), dtype=torch.int64)

    def validation_batch(self, num_sequences, sequence_tokens):
        return self.train_batch(10**6, 0, num_sequences, sequence_tokens)


def run(recipe_spec, path, **arguments) -> TrainingRun:
    return train(recipe_spec, Words(), path, is_compiled=False, **arguments)


class KilledError(Exception):
    """Stands for the end of the process."""


def test_a_killed_run_ends_with_the_losses_of_an_uninterrupted_one(tmp_path):
    whole = run(spec(), tmp_path / "whole")

    def kill(step, model):
        if step == 18:
            raise KilledError

    with pytest.raises(KilledError):
        run(spec(), tmp_path / "killed", at_step=kill)
    resumed = run(spec(), tmp_path / "killed")
    assert (whole.num_resumes, resumed.num_resumes) == (0, 1)
    assert resumed.train_losses == whole.train_losses
    assert resumed.gradient_norms == whole.gradient_norms
    assert resumed.evaluations == whole.evaluations
    assert [one.step for one in whole.evaluations] == [0, 10, 20, 30]


def test_training_learns_and_is_a_function_of_its_spec(tmp_path):
    first, again = run(spec(), tmp_path / "a"), run(spec(), tmp_path / "b")
    assert first.train_losses == again.train_losses
    assert first.train_losses[-1] < first.train_losses[0] - 1
    other = run(spec(seed=1), tmp_path / "c")
    assert other.train_losses != first.train_losses


def test_all_arms_of_a_seed_begin_at_the_same_loss(tmp_path):
    begins = {
        run(spec(recipe, training={"num_steps": 1}), tmp_path / "x").train_losses[0]
        for recipe in (Recipe(precision="fp32"), Recipe(wgrad={}), Recipe(dgrad={}))
    }
    assert len(begins) == 1


def test_unquantized_evaluation_differs_where_the_forward_pass_is_quantized(tmp_path):
    def gaps(recipe, name):
        done = run(spec(recipe), tmp_path / name)
        return {one.quantized_loss - one.unquantized_loss for one in done.evaluations}

    assert gaps(Recipe(wgrad={}), "w") == {0.0}
    assert 0.0 not in gaps(Recipe(fprop={}), "f")


def test_a_run_that_diverges_is_a_result_with_its_step(tmp_path):
    wild = Optimizer(learning_rate=100.0, warmup_steps=0, gradient_clip_norm=1e9)
    done = run(spec(optimizer=wild, training={"num_steps": 60}), tmp_path / "d")
    assert done.status == "diverged"
    assert done.diverged_at_step == len(done.train_losses)
    assert "above the first loss" in done.divergence or "gradient norm" in done.divergence
    assert all(map(math.isfinite, done.train_losses))


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    def poison(step, model):
        if step == 5:
            next(model.parameters()).data.fill_(math.nan)

    done = run(spec(), tmp_path / "n", at_step=poison)
    assert (done.status, done.diverged_at_step) == ("diverged", 5)
    assert "nan" in done.divergence


def checkpointing(recipe=STOCHASTIC, **changes):
    return spec(recipe, activation_checkpointing=True, **changes)


@pytest.mark.parametrize("recipe", [Recipe(precision="fp32"), STOCHASTIC], ids=["fp32", "SR"])
def test_recomputed_activations_change_nothing_but_the_order_of_sums(tmp_path, monkeypatch, recipe):
    monkeypatch.setattr(model, "LOSS_TOKENS", 24)  # does not divide the 64 of a batch
    kept, recomputed = run(spec(recipe), tmp_path / "k"), run(checkpointing(recipe), tmp_path / "r")
    assert recomputed.train_losses == pytest.approx(kept.train_losses, abs=2e-5)
    assert recomputed.gradient_norms == pytest.approx(kept.gradient_norms, abs=2e-4)


def test_recomputing_keeps_a_layers_input_and_no_logits(monkeypatch):
    monkeypatch.setattr(model, "LOSS_TOKENS", 8)

    def kept_numbers(wanted):
        trainer, sizes = Trainer(wanted, Words(), is_compiled=False), []
        keep = lambda saved: sizes.append(saved.numel()) or saved  # noqa: E731
        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved)
        with trainer.mx.step(0), hooks:
            trainer.model.loss(Words().train_batch(0, 0, 4, SHAPE.sequence_tokens))
        return sum(sizes)

    assert kept_numbers(checkpointing()) * 5 < kept_numbers(spec())


def killed_at(step_of_death, path):
    def kill(step, model):
        if step == step_of_death:
            raise KilledError

    with pytest.raises(KilledError):
        run(spec(), path, at_step=kill)
    (last,) = path.iterdir()  # the one before it is gone
    return last


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    last = killed_at(8, tmp_path)
    assert last.name == "step-00000007"
    with pytest.raises(ArtifactError, match=r"step-00000007.*Delete it"):
        run(spec(seed=1), tmp_path)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["bit", "cut", "gone", "card"])
def test_a_damaged_checkpoint_does_not_count(tmp_path, capsys, damage):
    whole = run(spec(), tmp_path / "whole")
    last = killed_at(8, tmp_path / "killed")
    shards = next(last.glob("*.distcp"))
    if damage == "bit":
        flip_a_bit(shards)
    if damage == "cut":
        shards.write_bytes(shards.read_bytes()[:1000])
    if damage == "gone":
        shards.unlink()
    if damage == "card":
        flip_a_bit(last / "checkpoint.json")
    resumed = run(spec(), tmp_path / "killed")
    said = capsys.readouterr().out
    assert "step-00000007" in said
    assert "damaged" in said or "not valid JSON" in said
    assert resumed.num_resumes == 0
    assert resumed.train_losses == whole.train_losses
    assert not list((tmp_path / "killed").glob("*/*.damaged"))  # gone with the next checkpoint


def test_a_checkpoint_that_was_not_finished_does_not_count(tmp_path):
    def kill(step, model):
        if step == 18:
            raise KilledError

    with pytest.raises(KilledError):
        run(spec(), tmp_path / "c", at_step=kill)
    shutil.copytree(tmp_path / "c/step-00000014", tmp_path / "c/step-00000021")
    (tmp_path / "c/step-00000021/checkpoint.json").unlink()
    seen = []
    run(spec(), tmp_path / "c", at_step=lambda step, model: seen.append(step))
    assert seen[0] == 14
    assert [folder.name for folder in (tmp_path / "c").iterdir()] == ["step-00000028"]


def test_only_layers_are_converted():
    trainer = Trainer(spec(), Words(), is_compiled=False)
    names = [n for n, m in trainer.model.named_modules() if isinstance(m, MXFP4Linear)]
    assert len(names) == 14
    assert all(name.startswith("layers.") for name in names)
    plain = Trainer(spec(Recipe(precision="fp32")), Words(), is_compiled=False)
    assert not any(isinstance(module, MXFP4Linear) for module in plain.model.modules())


def test_averaged_weights_are_evaluated_and_resumed(tmp_path):
    averaged = {"average_decay": 0.9, "final_evaluation_sequences": 8}
    whole = run(spec(training=averaged), tmp_path / "whole")
    plain = run(spec(), tmp_path / "plain")
    assert whole.train_losses == plain.train_losses  # averaging changes no step
    assert [one.quantized_loss for one in whole.evaluations] == [
        one.quantized_loss for one in plain.evaluations
    ]
    assert whole.evaluations[0].averaged_loss == whole.evaluations[0].quantized_loss
    assert whole.evaluations[1].averaged_loss != whole.evaluations[1].quantized_loss
    assert {one.averaged_loss for one in plain.evaluations} == {None}

    def kill(step, model):
        if step == 18:
            raise KilledError

    with pytest.raises(KilledError):
        run(spec(training=averaged), tmp_path / "killed", at_step=kill)
    resumed = run(spec(training=averaged), tmp_path / "killed")
    assert resumed.evaluations == whole.evaluations
    assert resumed.final_evaluation == whole.final_evaluation


def test_the_average_is_that_of_the_weights(tmp_path):
    trainer = Trainer(spec(training={"average_decay": 0.5}), Words(), is_compiled=False)
    name, weights = next(iter(trainer.model.named_parameters()))
    expected = weights.detach().clone()
    for step in range(12):
        trainer.step()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weights.detach()
    torch.testing.assert_close(trainer.averages[name], expected)


def test_a_last_evaluation_is_on_more_text(tmp_path):
    done = run(spec(training={"final_evaluation_sequences": 64}), tmp_path / "run")
    assert done.final_evaluation is not None
    assert done.final_evaluation.step == done.evaluations[-1].step
    assert done.final_evaluation.quantized_loss != done.evaluations[-1].quantized_loss
    assert run(spec(), tmp_path / "plain").final_evaluation is None


def test_the_null_arm_differs_from_its_baseline_by_the_order_of_sums(tmp_path):
    plain, reordered = (
        run(spec(Recipe(precision=precision), model=WIDE), tmp_path / precision)
        for precision in ("fp8", "fp8-reordered")
    )
    assert reordered.train_losses != plain.train_losses
    assert reordered.train_losses[0] == pytest.approx(plain.train_losses[0], rel=1e-5)
