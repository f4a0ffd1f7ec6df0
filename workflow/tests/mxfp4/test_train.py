"""Training runs: equal starts, resumable steps, divergence as a result."""

import math

import numpy as np
import pytest
import torch

from blockwise.config.mxfp4 import LlamaShape, Optimizer, Training
from blockwise.config.recipes import Recipe
from blockwise.errors import ArtifactError
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
    whole = run(spec(), tmp_path / "whole.pt")

    def kill(step, model):
        if step == 18:
            raise KilledError

    with pytest.raises(KilledError):
        run(spec(), tmp_path / "killed.pt", at_step=kill)
    resumed = run(spec(), tmp_path / "killed.pt")
    assert (whole.num_resumes, resumed.num_resumes) == (0, 1)
    assert resumed.train_losses == whole.train_losses
    assert resumed.gradient_norms == whole.gradient_norms
    assert resumed.evaluations == whole.evaluations
    assert [one.step for one in whole.evaluations] == [0, 10, 20, 30]


def test_training_learns_and_is_a_function_of_its_spec(tmp_path):
    first, again = run(spec(), tmp_path / "a.pt"), run(spec(), tmp_path / "b.pt")
    assert first.train_losses == again.train_losses
    assert first.train_losses[-1] < first.train_losses[0] - 1
    other = run(spec(seed=1), tmp_path / "c.pt")
    assert other.train_losses != first.train_losses


def test_all_arms_of_a_seed_begin_at_the_same_loss(tmp_path):
    begins = {
        run(spec(recipe, training={"num_steps": 1}), tmp_path / "x.pt").train_losses[0]
        for recipe in (Recipe(precision="fp32"), Recipe(wgrad={}), Recipe(dgrad={}))
    }
    assert len(begins) == 1


def test_unquantized_evaluation_differs_where_the_forward_pass_is_quantized(tmp_path):
    def gaps(recipe, name):
        done = run(spec(recipe), tmp_path / name)
        return {one.quantized_loss - one.unquantized_loss for one in done.evaluations}

    assert gaps(Recipe(wgrad={}), "w.pt") == {0.0}
    assert 0.0 not in gaps(Recipe(fprop={}), "f.pt")


def test_a_run_that_diverges_is_a_result_with_its_step(tmp_path):
    wild = Optimizer(learning_rate=100.0, warmup_steps=0, gradient_clip_norm=1e9)
    done = run(spec(optimizer=wild, training={"num_steps": 60}), tmp_path / "d.pt")
    assert done.status == "diverged"
    assert done.diverged_at_step == len(done.train_losses)
    assert "above the first loss" in done.divergence or "gradient norm" in done.divergence
    assert all(map(math.isfinite, done.train_losses))


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    def poison(step, model):
        if step == 5:
            next(model.parameters()).data.fill_(math.nan)

    done = run(spec(), tmp_path / "n.pt", at_step=poison)
    assert (done.status, done.diverged_at_step) == ("diverged", 5)
    assert "nan" in done.divergence


@pytest.mark.parametrize("damage", ["another run", "cut", "text"])
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, damage):
    path = tmp_path / "c.pt"

    def stop(step, model):
        if step == 8:
            raise KilledError

    with pytest.raises(KilledError):
        run(spec(), path, at_step=stop)
    wanted = spec(seed=1) if damage == "another run" else spec()
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    if damage == "text":
        path.write_text("not a checkpoint")
    with pytest.raises(ArtifactError, match=r"c\.pt.*[Dd]elete it"):
        run(wanted, path)


def test_only_layers_are_converted():
    trainer = Trainer(spec(), Words(), is_compiled=False)
    names = [n for n, m in trainer.model.named_modules() if isinstance(m, MXFP4Linear)]
    assert len(names) == 14
    assert all(name.startswith("layers.") for name in names)
    plain = Trainer(spec(Recipe(precision="fp32")), Words(), is_compiled=False)
    assert not any(isinstance(module, MXFP4Linear) for module in plain.model.modules())
