"""`MXFP4Linear` is nn.Linear where nothing is quantized, and three explicit GEMMs where it is."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from blockwise.config.recipes import Operand, RandomizedHadamard, Recipe
from blockwise.errors import ConfigError
from blockwise.mxfp4 import noise
from blockwise.mxfp4.fp8 import fake_quantize_fp8
from blockwise.mxfp4.hadamard import rotate
from blockwise.mxfp4.linear import PLACES, MXFP4Linear, convert, draw_keys
from blockwise.mxfp4.operand import compiled_prepare, prepare_operand
from blockwise.mxfp4.quantize import fake_quantize

FP32 = Recipe(precision="fp32")
ALL = Recipe(fprop={}, dgrad={}, wgrad={})
SR = {"rounding": "sr"}
W_SR = Recipe(wgrad={"dy": SR, "x": SR})
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


def network_of(recipe, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(IN, 64), nn.SiLU(), nn.Linear(64, OUT, bias=False))
    convert(model, recipe, **options)
    return model


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
    draw_keys(layer, torch.Generator().manual_seed(4))
    x, dy = normal(TOKENS, IN), normal(TOKENS, OUT, seed=1)
    letters = {"fprop": "F", "dgrad": "D", "wgrad": "W"}

    def prepare(gemm_name, operand_name, values, axis):
        gemm = getattr(EVERY_SR, gemm_name)
        left, right = PLACES[letters[gemm_name]]
        place = left if operand_name == gemm.operands[0][0] else right
        if gemm.rotation:
            signs_key = noise.subkey(layer.noise_key, left.signs_stream(is_matched=True))
            values = rotate(values, axis, 16, noise.signs(signs_key, 16))
        rounding_key = noise.subkey(layer.noise_key, place.rounding_stream)
        return fake_quantize(values, axis, getattr(gemm, operand_name), rounding_key)

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


# --- random numbers ------------------------------------------------------------------------


def test_keys_follow_from_the_generators_state_and_change_stochastic_rounding():
    model, x = network_of(W_SR), normal(TOKENS, IN)
    generator = torch.Generator().manual_seed(5)
    state = generator.get_state()
    draw_keys(model, generator)
    first = run(model, x)
    assert_all_equal(run(model, x), first)  # the same step again
    draw_keys(model, generator)
    second = run(model, x)
    assert torch.equal(second[0], first[0])  # Fprop is not rounded stochastically
    assert not torch.equal(second[2], first[2])
    generator.set_state(state)
    draw_keys(model, generator)
    assert_all_equal(run(model, x), first)


def test_every_layer_and_process_has_a_key_of_its_own():
    keys = []
    for rank in (0, 1):
        model = network_of(W_SR)
        draw_keys(model, torch.Generator().manual_seed(5), rank)
        keys += [int(layer.noise_key) for layer in model if isinstance(layer, MXFP4Linear)]
    assert len(set(keys)) == 4


def test_keys_are_no_part_of_a_checkpoint():
    plain = nn.Sequential(nn.Linear(IN, 64), nn.SiLU(), nn.Linear(64, OUT, bias=False))
    assert network_of(W_SR).state_dict().keys() == plain.state_dict().keys()


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
    convert(model, recipe)
    compiled = torch.compile(model)
    for seed in (1, 2):
        draw_keys(model, torch.Generator().manual_seed(seed))
        expected = run(model, normal(TOKENS, IN))
        assert_all_close(run(compiled, normal(TOKENS, IN)), expected, rtol=1e-6, atol=1e-6)


# --- convert -------------------------------------------------------------------------------


class Network(nn.Module):
    """Two layers of two linears each, and a head."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleDict({"up": nn.Linear(32, 64), "down": nn.Linear(64, 32)}) for _ in range(2)
        )
        self.head = nn.Linear(32, 10)


def converted_names(model):
    return [name for name, module in model.named_modules() if isinstance(module, MXFP4Linear)]


def test_patterns_choose_layers():
    for options, expected in [
        ({}, ["layers.0.up", "layers.0.down", "layers.1.up", "layers.1.down", "head"]),
        ({"include": ["layers.*"], "exclude": ["*.1.*"]}, ["layers.0.up", "layers.0.down"]),
        ({"include": ["head", "*.up"]}, ["layers.0.up", "layers.1.up", "head"]),
        ({"include": ["layers.[0]*"], "exclude": ["*down"]}, ["layers.0.up"]),
    ]:
        model = Network()
        assert convert(model, FP32, **options) == expected
        assert converted_names(model) == expected


def test_parameters_stay_the_same_objects():
    model = Network()
    before = dict(model.named_parameters())
    convert(model, ALL, include=["layers.*"])
    after = dict(model.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)


def test_a_converted_layer_is_not_converted_again():
    model = Network()
    convert(model, ALL, include=["layers.*"])
    assert convert(model, FP32) == ["head"]


def test_patterns_that_match_nothing_are_refused():
    message = r"include \['towers\.\*'\] and exclude \['head'\]; name modules as"
    with pytest.raises(ConfigError, match=message):
        convert(Network(), ALL, include=["towers.*"], exclude=["head"])


@pytest.mark.parametrize(
    ("recipe", "sizes", "message"),
    [
        (
            Recipe(fprop={}),
            (40, 32),
            "layer: F:x .* dimension of 40 .* by 32; make it a multiple, or leave",
        ),
        (
            Recipe(dgrad={}),
            (32, 40),
            "layer: D:dy .* dimension of 40 .* by 32; make it a multiple, or leave",
        ),
        (
            Recipe(wgrad={"x": {"groups": "2d"}}),
            (40, 32),
            "layer: W:x .* dimension of 40 .* by 32; .*set groups: 1d",
        ),
    ],
    ids=["F", "D", "2d"],
)
def test_sizes_that_cannot_be_grouped_are_refused(recipe, sizes, message):
    model = nn.ModuleDict({"layer": nn.Linear(*sizes)})
    with pytest.raises(ConfigError, match=message):
        convert(model, recipe)


def test_sizes_matter_only_to_the_gemm_that_sums_over_them():
    model = nn.ModuleDict({"layer": nn.Linear(40, 10)})
    assert convert(model, Recipe(wgrad={})) == ["layer"]


def test_tokens_that_cannot_be_grouped_are_refused():
    y = linear_of(Recipe(wgrad={}))(normal(40, IN))
    with pytest.raises(
        ConfigError, match=r"W:dy .*\[40, 32\].* by 32; make it a multiple, or leave"
    ):
        y.sum().backward()


@pytest.mark.parametrize("recipe", [{"fprop": {"x": {"groups": "2d"}}}], ids=["F:x"])
def test_tokens_that_cannot_be_squared_are_refused(recipe):
    layer = linear_of(Recipe(**recipe))
    with pytest.raises(ConfigError, match="40"):
        layer(normal(40, IN))


def test_a_refused_model_stays_as_it_was():
    model = nn.ModuleDict({"good": nn.Linear(32, 32), "bad": nn.Linear(40, 32)})
    with pytest.raises(ConfigError, match=r"bad: F:x .* 40"):
        convert(model, ALL)
    assert converted_names(model) == []


def test_a_layer_in_two_places_is_converted_in_both():
    shared = nn.Linear(32, 32)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    convert(model, ALL)
    assert isinstance(model[0], MXFP4Linear)
    assert model[0] is model[2]


# --- distributed ---------------------------------------------------------------------------


@pytest.fixture
def process_group(tmp_path):
    """A group of this process alone."""
    rendezvous = f"file://{tmp_path / 'rendezvous'}"
    dist.init_process_group("gloo", init_method=rendezvous, rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def test_ddp_computes_the_same(process_group):
    model = network_of(EVERY_SR)
    draw_keys(model, torch.Generator().manual_seed(1))
    expected = run(copy.deepcopy(model), normal(TOKENS, IN))
    assert_all_equal(run(DistributedDataParallel(model), normal(TOKENS, IN)), expected)


def test_fsdp2_computes_the_same(process_group):
    model = network_of(EVERY_SR)
    plain = copy.deepcopy(model)
    mesh = init_device_mesh("cpu", (1,))
    for part in (model[0], model[2], model):
        fully_shard(part, mesh=mesh)
    for module in (plain, model):
        draw_keys(module, torch.Generator().manual_seed(1))
    expected = run(plain, normal(TOKENS, IN))
    y, dx, *gradients = run(model, normal(TOKENS, IN))
    assert_all_equal([y, dx, *(gradient.full_tensor() for gradient in gradients)], expected)
