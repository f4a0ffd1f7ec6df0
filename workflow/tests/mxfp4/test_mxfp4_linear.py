"""`MXFP4Linear` is nn.Linear where nothing is quantized, and three explicit GEMMs where it is."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from blockwise.config.recipes import Operand, RandomizedHadamard, Recipe
from blockwise.mxfp4 import conversion_of, convert, noise
from blockwise.mxfp4.arithmetic import PLACES
from blockwise.mxfp4.fp8 import fake_quantize_fp8
from blockwise.mxfp4.hadamard import rotate
from blockwise.mxfp4.operand import compiled_prepare, prepare_operand
from blockwise.mxfp4.quantize import fake_quantize

FP32 = Recipe(precision="fp32")
ALL = Recipe(fprop={}, dgrad={}, wgrad={})
SR = {"rounding": "sr"}
RHT16 = {"kind": "rht", "size": 16}
EVERY_SR = Recipe(
    fprop={"x": SR, "w": SR},
    dgrad={"dy": SR, "w": {"groups": "2d"}},
    wgrad={"dy": SR, "x": SR, "rotation": RHT16},
)
TOKENS, IN, OUT = 64, 96, 32


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def key(number):
    return torch.tensor(number, dtype=torch.int32)


def linear_of(recipe, *, bias=True, seed=0):
    """A converted linear layer in a model of its own: layer [IN -> OUT]."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(IN, OUT, bias=bias))
    convert(model, recipe)
    return model[0]


def run(layer, x, dy=None):
    """Output, and gradients of input and parameters, for the output's gradient dy."""
    x = x.clone().requires_grad_()
    layer.zero_grad()
    y = layer(x)
    y.backward(normal(*y.shape, seed=7).to(y.dtype) if dy is None else dy)
    return [y.detach(), x.grad, *(p.grad.clone() for p in layer.parameters() if p.requires_grad)]


def assert_all_equal(results, expected):
    for result, wanted in zip(results, expected, strict=True):
        assert torch.equal(result, wanted)


def assert_all_close(results, expected, **tolerance):
    for result, wanted in zip(results, expected, strict=True):
        torch.testing.assert_close(result, wanted, **tolerance)


# --- nothing quantized ---------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(TOKENS, IN), (2, 5, IN), (IN,)], ids=["2d", "3d", "1d"])
def test_fp32_is_nn_linear(bias, shape):
    layer = linear_of(FP32, bias=bias)
    plain = nn.Linear(IN, OUT, bias=bias)
    plain.load_state_dict(layer.state_dict())
    assert_all_close(run(layer, normal(*shape)), run(plain, normal(*shape)))


def test_gradients_of_fp32_are_those_of_finite_differences():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    convert(model, FP32)
    parameters = [p.detach().clone().requires_grad_() for p in model.parameters()]
    names = [name for name, _ in model.named_parameters()]

    def output(x, *values):
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (x,))

    x = normal(4, 6).double().requires_grad_()
    assert torch.autograd.gradcheck(output, (x, *parameters))


# --- against GEMMs written out -------------------------------------------------------------


def by_hand(x, w, dy, prepare):
    """Y, dX and dW where `prepare(gemm, name, values, axis)` gives each operand of each GEMM."""
    y = prepare("fprop", "x", x, 1) @ prepare("fprop", "w", w, 1).T
    dx = prepare("dgrad", "dy", dy, 1) @ prepare("dgrad", "w", w, 0)
    dw = prepare("wgrad", "dy", dy, 0).T @ prepare("wgrad", "x", x, 0)
    return y, dx, dw


ARMS = {
    "F": {"fprop": {}},
    "D": {"dgrad": {}},
    "W": {"wgrad": {}},
    "F+D+W": {"fprop": {}, "dgrad": {}, "wgrad": {}},
    "W+DHT16": {"wgrad": {"rotation": {"kind": "dht", "size": 16}}},
    "F+D+W+DHT32": {
        gemm: {"rotation": {"kind": "dht", "size": 32}} for gemm in ("fprop", "dgrad", "wgrad")
    },
    "rules": {
        "fprop": {"x": {"scale_rule": "floor"}, "w": {"groups": "2d", "scale_rule": "ceil"}},
        "dgrad": {"dy": {"scale_rule": "rceil"}, "w": {"groups": "2d"}},
    },
    "one_operand": {"fprop": {"x": None}, "wgrad": {"x": None}, "dgrad": {"w": None}},
}


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_computes_its_gemms(name):
    recipe = Recipe(**ARMS[name])
    layer = linear_of(recipe, bias=False)
    x, dy = normal(TOKENS, IN), normal(TOKENS, OUT, seed=1)

    def prepare(gemm_name, operand_name, values, axis):
        gemm = getattr(recipe, gemm_name)
        if gemm is None:
            return values
        if gemm.rotation:
            values = rotate(values, axis, gemm.rotation.size)
        operand = getattr(gemm, operand_name)
        return fake_quantize(values, axis, operand) if operand else values

    assert_all_close(run(layer, x, dy), by_hand(x, layer.weight.detach(), dy, prepare))


def test_random_arms_compute_their_gemms():
    """Each operand of each GEMM has random numbers of its own, and both have the same signs."""
    layer = linear_of(EVERY_SR, bias=False)
    x, dy = normal(TOKENS, IN), normal(TOKENS, OUT, seed=1)
    letters = {"fprop": "F", "dgrad": "D", "wgrad": "W"}

    def prepare(gemm_name, operand_name, values, axis):
        gemm = getattr(EVERY_SR, gemm_name)
        left, right = PLACES[letters[gemm_name]]
        place = left if operand_name == gemm.operands[0][0] else right
        if gemm.rotation:
            signs_key = noise.subkey(layer.key, left.signs_stream(is_matched=True))
            values = rotate(values, axis, 16, noise.signs(signs_key, 16))
        rounding_key = noise.subkey(layer.key, place.rounding_stream)
        return fake_quantize(values, axis, getattr(gemm, operand_name), rounding_key)

    with conversion_of(layer).step(4):
        assert_all_close(run(layer, x, dy), by_hand(x, layer.weight.detach(), dy, prepare))


def test_no_two_operands_share_random_numbers():
    places = [place for pair in PLACES.values() for place in pair]
    streams = [place.rounding_stream for place in places]
    streams += [place.signs_stream(is_matched=False) for place in places]
    assert len(set(streams)) == 12
    for left, right in PLACES.values():
        assert left.signs_stream(is_matched=True) == right.signs_stream(is_matched=True)


def test_the_low_precision_baselines_compute_their_gemms():
    x, dy = normal(TOKENS, IN), normal(TOKENS, OUT, seed=1)

    def as_fp8(_, operand_name, values, __):
        is_gradient = operand_name == "dy"
        return fake_quantize_fp8(values, torch.float8_e5m2 if is_gradient else torch.float8_e4m3fn)

    def as_bf16(_, __, values, ___):
        return values.bfloat16()

    for precision, prepare in (("fp8", as_fp8), ("bf16", as_bf16)):
        layer = linear_of(Recipe(precision=precision), bias=False)
        expected = [value.float() for value in by_hand(x, layer.weight.detach(), dy, prepare)]
        assert_all_close(run(layer, x, dy), expected)


def test_quantization_moves_only_its_own_gemm():
    exact = run(linear_of(FP32), normal(TOKENS, IN))
    for letter, changed in (("F", 0), ("D", 1), ("W", 2)):
        result = run(linear_of(Recipe(**ARMS[letter])), normal(TOKENS, IN))
        same = [torch.equal(one, other) for one, other in zip(result, exact, strict=True)]
        assert [index for index, is_same in enumerate(same) if not is_same] == [changed]
        error = (result[changed] - exact[changed]).norm() / exact[changed].norm()
        assert 0.02 < error < 0.3


def test_the_bias_is_added_in_full_precision():
    layer = linear_of(ALL)
    without = layer(normal(TOKENS, IN)) - layer.bias
    bias_gradient = run(layer, normal(TOKENS, IN))[-1]
    with torch.no_grad():
        layer.bias.zero_()
    torch.testing.assert_close(without, layer(normal(TOKENS, IN)))
    assert torch.equal(bias_gradient, normal(TOKENS, OUT, seed=7).sum(0))


def test_leading_dimensions_are_tokens():
    layer = linear_of(ALL)
    flat = run(layer, normal(TOKENS, IN), normal(TOKENS, OUT, seed=1))
    dy = normal(TOKENS, OUT, seed=1).view(2, TOKENS // 2, OUT)
    deep = run(layer, normal(TOKENS, IN).view(2, TOKENS // 2, IN), dy)
    assert deep[0].shape == (2, TOKENS // 2, OUT)
    assert_all_equal([deep[0].flatten(0, 1), deep[1].flatten(0, 1), *deep[2:]], flat)


def test_a_gradient_in_another_memory_order_is_read_right():
    """`sum().backward()` hands back one number expanded, a transposed use a transpose."""
    layer, x = linear_of(ALL), normal(TOKENS, IN)
    for dy in (torch.ones(()).expand(TOKENS, OUT), normal(OUT, TOKENS, seed=1).T):
        assert not dy.is_contiguous()
        assert_all_close(run(layer, x, dy), run(layer, x, dy.contiguous()))


def test_a_frozen_weight_has_no_wgrad():
    layer = linear_of(ALL)
    layer.weight.requires_grad_(False)
    x = normal(40, IN).requires_grad_()  # 40 tokens: Wgrad would refuse them
    layer(x).sum().backward()
    assert layer.weight.grad is None
    assert x.grad.isfinite().all()


def test_autocast_computes_and_answers_in_bf16():
    layer = linear_of(ALL)
    x = normal(TOKENS, IN).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        assert y.dtype == functional.linear(x, layer.weight).dtype == torch.bfloat16
    y.float().square().sum().backward()
    assert x.grad.dtype == layer.weight.grad.dtype == torch.float32
    operands = (fake_quantize(v.bfloat16(), 1, Operand()) for v in (x, layer.weight))
    left, right = operands
    torch.testing.assert_close(y, left @ right.T + layer.bias.bfloat16())


# --- compiled ------------------------------------------------------------------------------


def hard_matrix(num_rows, num_columns):
    """Ordinary, zero, tiny and poisoned groups along both dimensions."""
    values = normal(num_rows, num_columns)
    values[:, 3] *= 1e-38
    values[5] *= 1e30
    values[7] = 0.0
    values[40, 2] = torch.nan
    values[33, 1] = -torch.inf
    return values


@pytest.mark.parametrize(
    ("place", "operand", "rotation"),
    [
        (PLACES["W"][0], Operand(rounding="sr"), RandomizedHadamard(kind="rht", size=32)),
        (PLACES["F"][1], Operand(rounding="sr34", scale_rule="rceil", groups="2d"), None),
    ],
    ids=["sr_rht32_columns", "sr34_rceil_2d_rows"],
)
def test_a_compiled_operand_equals_the_eager_one_for_all_shapes(place, operand, rotation):
    for shape, number in (((64, 96), 1), ((128, 64), 2)):
        values = hard_matrix(*shape)
        arguments = (values, place, operand, rotation, key(number))
        result, expected = compiled_prepare()(*arguments), prepare_operand(*arguments)
        assert expected.isnan().any()
        assert expected.isfinite().any()
        torch.testing.assert_close(result, expected, rtol=0, atol=0, equal_nan=True)
        is_number = expected.isfinite()  # the sign of a NaN means nothing, that of a zero does
        assert torch.equal(result.signbit()[is_number], expected.signbit()[is_number])


def test_a_compiled_model_equals_the_eager_one():
    """torch.compile over the whole model, forward and backward, with the same keys."""
    recipe = Recipe(fprop={"x": SR}, wgrad={"dy": SR, "rotation": RHT16})
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(IN, OUT))
    mx = convert(model, recipe)
    compiled = torch.compile(model)
    for step in (1, 2):
        with mx.step(step):
            result = run(compiled, normal(TOKENS, IN))
        with mx.step(step):
            expected = run(model, normal(TOKENS, IN))
        assert_all_close(result, expected, rtol=1e-6, atol=1e-6)
