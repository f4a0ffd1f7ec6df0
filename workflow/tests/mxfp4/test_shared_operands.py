"""A matrix that two GEMMs take in the same form is prepared once, with the same bits."""

import pytest
import torch

from blockwise.config.recipes import Recipe
from blockwise.mxfp4 import conversion_of, convert, recipe
from blockwise.mxfp4.arithmetic import Arithmetic, arithmetic_of
from blockwise.mxfp4.fp8 import compiled_fp8, fake_quantize_fp8
from blockwise.mxfp4.linear import _LinearFunction
from blockwise.mxfp4.operand import prepare_operand

SQUARES = "F+D+W+2D(F:x,F:w,D:dy,D:w,W:dy,W:x)"
SHARED = {
    "fp8": {"x", "w", "dy"},
    "bf16": {"x", "w", "dy"},
    "F+D+W": set(),
    "F+D+W+2D(F:w,D:w)": {"w"},
    SQUARES: {"x", "w", "dy"},
    "F+D+W+SR(F:w)+2D(F:w,D:w)": set(),
    "F+D+W+2D(F:w,D:w)+DHT16(D)": set(),
    "F+D+W+M(F:x)+2D(F:w,D:w)": set(),
    "F+2D(F:w)": set(),
}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X, W, DY = normal(64, 96), normal(32, 96, seed=1), normal(64, 32, seed=2)
KEY = torch.tensor(0, dtype=torch.int32)


@pytest.mark.parametrize("name", SHARED)
def test_what_is_shared(name):
    assert arithmetic_of(recipe(name)).shared == SHARED[name]


def test_zeros_that_fill_up_tokens_stand_in_one_gemm():
    assert arithmetic_of(recipe(SQUARES), tokens="pad").shared == {"w"}


@pytest.mark.parametrize("name", ["fp8", "bf16", SQUARES, "F+D+W+2D(F:w,D:w)", "F+D+W+M(W:x)"])
def test_the_three_products_are_those_that_are_computed_apart(name):
    how = arithmetic_of(recipe(name))
    x, w = X.clone().requires_grad_(), W.clone().requires_grad_()
    y = _LinearFunction.apply(x, w, KEY, how)
    y.backward(DY)
    assert torch.equal(y, how.product("F", X, W, KEY))
    assert torch.equal(x.grad, how.product("D", DY, W, KEY))
    assert torch.equal(w.grad, how.product("W", DY, X, KEY))


def test_each_is_prepared_once():
    calls = []

    def prepare(values, place, operand, rotation, key):
        calls.append((place.gemm, place.side))
        return prepare_operand(values, place, operand, rotation, key)

    def run(how):
        calls.clear()
        x, w = X.clone().requires_grad_(), W.clone().requires_grad_()
        _LinearFunction.apply(x, w, KEY, how).backward(DY)
        return list(calls)

    assert run(Arithmetic(recipe(SQUARES), prepare=prepare)) == [(0, 0), (0, 1), (1, 0)]
    assert len(run(Arithmetic(recipe("F+D+W+2D(F:w,D:w)"), prepare=prepare))) == 5
    assert len(run(Arithmetic(recipe("F+D+W"), prepare=prepare))) == 6


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_compiled_fp8_is_eager_fp8_bit_for_bit(dtype):
    hard = normal(64, 64) * torch.exp(4 * normal(64, 64, seed=3))
    hard[3] = 0.0
    poisoned = hard.clone()
    poisoned[5, 5] = torch.inf
    for values in (hard, hard[:40].contiguous(), hard * 1e-30, poisoned):
        result, expected = compiled_fp8(values, dtype), fake_quantize_fp8(values, dtype)
        torch.testing.assert_close(result, expected, rtol=0, atol=0, equal_nan=True)


def test_a_compiled_conversion_compiles_fp8_as_well():
    models = []
    for is_compiled in (False, True):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(96, 32))
        convert(model, Recipe(precision="fp8"), is_compiled=is_compiled)
        model(X).backward(DY)
        models.append(model)
    assert torch.equal(models[0][0].weight.grad, models[1][0].weight.grad)
    compiled = conversion_of(models[1]).layers["0"].how
    assert compiled.prepare is not prepare_operand
