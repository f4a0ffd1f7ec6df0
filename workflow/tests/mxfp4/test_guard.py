"""The guard passes what trains, and fails on each fault that was silent."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from blockwise.errors import ConfigError
from blockwise.mxfp4 import check_conversion, convert, noise
from blockwise.mxfp4.arithmetic import Arithmetic

RANDOM = "F+D+W+SR(F:x,D:dy,W:dy)+RHT16(W)"
X = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))


class Recomputing(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inside = nn.Sequential(nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 32))

    def forward(self, x):
        return checkpoint(self.inside, x, use_reentrant=False)


def checked(recipe=RANDOM):
    model = Recomputing()
    check_conversion(convert(model, recipe), lambda: model(X).square().sum())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("recipe", [RANDOM, "F+D+W", "fp8", "fp32"])
def test_what_trains_passes(recipe):
    checked(recipe)


def test_gradients_of_zero_fail(monkeypatch):
    """What a DTensor did: every quantized value became zero."""
    monkeypatch.setattr(Arithmetic, "operand", lambda how, use, values, key: values * 0)
    with pytest.raises(ConfigError, match=r"inside\.\d: the gradient of the weight is zero every"):
        checked()


def test_gradients_that_are_not_finite_fail(monkeypatch):
    monkeypatch.setattr(Arithmetic, "operand", lambda how, use, values, key: values / 0)
    with pytest.raises(ConfigError, match=r"is not finite"):
        checked()


def test_one_key_for_all_layers_fails(monkeypatch):
    """What DistributedDataParallel did to the ranks, and a missing draw to the steps."""

    def same(moment, layers):
        return torch.full((len(layers),), moment[2], dtype=torch.int32)

    monkeypatch.setattr(noise, "training_keys", same)
    with pytest.raises(ConfigError, match=r"4 keys of 2 layers and 2 .* only 2 different"):
        checked()


def test_one_key_for_all_micro_batches_fails(monkeypatch):
    keys_of = noise.training_keys
    monkeypatch.setattr(noise, "training_keys", lambda m, layers: keys_of((0,), layers))
    with pytest.raises(ConfigError, match=r"4 keys of 2 layers .* only 2 different"):
        checked()


def test_keys_that_layers_do_not_take_fail(monkeypatch):
    operand = Arithmetic.operand
    fixed = torch.tensor(1, dtype=torch.int32)
    monkeypatch.setattr(
        Arithmetic, "operand", lambda how, use, values, key: operand(how, use, values, fixed)
    )
    with pytest.raises(ConfigError, match=r"rounds with the same random numbers"):
        checked()


def test_a_key_that_changes_before_recomputation_fails():
    """The recomputed forward pass would round otherwise than the first one did."""
    model = Recomputing()
    mx = convert(model, RANDOM)

    def loss():
        value = model(X).square().sum()
        for layer in mx.layers.values():
            layer.key = layer.key + 1
        return value

    with pytest.raises(ConfigError, match=r"computed again in another micro-batch"):
        check_conversion(mx, loss)


def test_other_randomness_fails():
    model = nn.Sequential(nn.Linear(32, 32), nn.Dropout(0.5))
    with pytest.raises(ConfigError, match=r"the same micro-batch gave two gradients"):
        check_conversion(convert(model, "F+D+W"), lambda: model(X).sum())
