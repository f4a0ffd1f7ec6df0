"""Converting a model: which layers, what they keep, and keys that are a function of the moment."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

from blockwise.config.recipes import Recipe
from blockwise.errors import ConfigError
from blockwise.mxfp4 import MXFP4Linear, conversion_of, convert
from blockwise.mxfp4 import recipe as recipe_of
from blockwise.mxfp4.arithmetic import arithmetic_of

TOKENS, IN, OUT = 64, 96, 32
W_SR = "W+SR(W:dy,W:x)"
EVERY_SR = "F+D+W+SR(F:x,F:w,D:dy,W:dy,W:x)+2D(D:w)+RHT16(W)"


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(num_hidden=64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(IN, num_hidden), nn.SiLU(), nn.Linear(num_hidden, OUT))


def gradients(model, x=None):
    """Gradients of the parameters after one forward and backward pass."""
    model.zero_grad()
    model(normal(TOKENS, IN) if x is None else x).square().sum().backward()
    return [p.grad.clone() for p in model.parameters()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


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


# --- which layers --------------------------------------------------------------------------


def test_patterns_choose_layers():
    for options, expected in [
        ({}, ["layers.0.up", "layers.0.down", "layers.1.up", "layers.1.down", "head"]),
        ({"include": ["layers.*"], "exclude": ["*.1.*"]}, ["layers.0.up", "layers.0.down"]),
        ({"include": ["head", "*.up"]}, ["layers.0.up", "layers.1.up", "head"]),
        ({"include": ["layers.[0]*"], "exclude": ["*down"]}, ["layers.0.up"]),
    ]:
        model = Network()
        mx = convert(model, "fp8", **options)
        assert list(mx.layers) == expected
        assert converted_names(model) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exclude": ["lm_head"]}, r"exclude: the pattern 'lm_head' .* there are .*head"),
        ({"exclude": ["layers.1"]}, r"'layers\.1' matches no linear layer; write 'layers\.1\.\*'"),
        ({"exclude": ["up"]}, r"there are layers\.0\.up, layers\.1\.up"),
        ({"include": ["towers.*"]}, r"include: the pattern 'towers\.\*' matches no linear layer"),
        ({"exclude": ["*"]}, r"no linear layer matches .* exclude \['\*'\]: nothing matches"),
        ({"exclude": "head"}, r"exclude is the text 'head'; give a list"),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused(options, message):
    model = Network()
    with pytest.raises(ConfigError, match=message):
        convert(model, "F+D+W", **options)
    assert converted_names(model) == []


def test_the_name_under_a_compiled_model_is_told():
    with pytest.raises(ConfigError, match=r"'head' .* there are _orig_mod\.head"):
        convert(torch.compile(Network()), "fp8", exclude=["head"])


@pytest.mark.parametrize("given", [None, {"wgrad": {}}, 4, "w", "F+D+W+DHT16", "W+SR(W:dy)+W"])
def test_what_is_no_recipe_is_refused(given):
    with pytest.raises(ConfigError, match=r"F\+D\+W"):
        convert(network(), given)


def test_a_name_is_the_recipe():
    mx = convert(network(), "F+D+W+DHT16(W)")
    dht = {"kind": "dht", "size": 16}
    assert mx.recipe == Recipe(fprop={}, dgrad={}, wgrad={"rotation": dht})


def test_the_coverage_is_said():
    model = Network()
    mx = convert(model, "F+D+W", exclude=["head"])
    linears = sum(p.numel() for p in model.layers.parameters())
    coverage = mx.coverage
    assert (coverage.num_layers, coverage.num_converted_parameters) == (4, linears)
    assert coverage.parameters_frac == pytest.approx(linears / (linears + 330))
    assert repr(mx) == (
        "F+D+W in 4 linear layers with 8,384 of 8,714 parameters (96.2%); left out: head (Linear, "
        "330: excluded)"
    )


def test_a_shared_weight_counts_once():
    model = nn.ModuleDict(
        {"embedding": nn.Embedding(64, 32), "head": nn.Linear(32, 64, bias=False)}
    )
    model["head"].weight = model["embedding"].weight
    mx = convert(model, "F+D+W")
    assert model["head"].weight is model["embedding"].weight
    assert mx.coverage.parameters_frac == 1


class Scaled(nn.Linear):
    """A subclass may compute anything."""


class Experts(nn.Module):
    """One matrix an expert, in one parameter."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(2, 32, 32))


def test_what_is_left_out_unasked_is_warned_of():
    model = nn.ModuleDict(
        {
            "plain": nn.Linear(32, 32),
            "scaled": Scaled(32, 32),
            "attention": nn.MultiheadAttention(32, 2),
            "experts": Experts(),
        }
    )
    with pytest.warns(UserWarning, match=r"scaled \(Scaled\), attention\.out_proj .* experts \(Ex"):
        mx = convert(model, "F+D+W")
    assert list(mx.layers) == ["plain"]
    assert {one.name: one.why for one in mx.coverage.left_out}["scaled"] == "not nn.Linear"
    mx.revert()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert(model, "F+D+W", exclude=["scaled", "attention.*", "experts"])


def test_only_odd_layers_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"what matches is not a plain nn\.Linear: scaled \(Sca"):
        convert(nn.ModuleDict({"scaled": Scaled(32, 32)}), "F+D+W")


@pytest.mark.parametrize(
    ("recipe", "sizes", "message"),
    [
        ("F", (40, 32), r"layer: F:x .* dimension of 40 .* by 32; .*exclude=\['layer'\]"),
        ("D", (32, 40), r"layer: D:dy .* dimension of 40 .* by 32"),
        ("W+2D(W:x)", (40, 32), r"layer: W:x .* dimension of 40 .*set groups: 1d"),
    ],
)
def test_sizes_that_cannot_be_grouped_are_refused(recipe, sizes, message):
    with pytest.raises(ConfigError, match=message):
        convert(nn.ModuleDict({"layer": nn.Linear(*sizes)}), recipe)


def test_sizes_matter_only_to_the_gemm_that_sums_over_them():
    assert list(convert(nn.ModuleDict({"layer": nn.Linear(40, 10)}), "W").layers) == ["layer"]


def test_all_layers_that_do_not_fit_are_named_and_the_model_stays_as_it_was():
    model = nn.ModuleDict({"good": nn.Linear(32, 32), "router": nn.Linear(32, 4)})
    model["head"] = nn.Linear(32, 50257)
    with pytest.raises(ConfigError, match=r"2 of 3 layers .* exclude=\['router', 'head'\]"):
        convert(model, "F+D+W")
    assert converted_names(model) == []
    convert(model, "F+D+W", exclude=["router", "head"])


# --- what stays ----------------------------------------------------------------------------


def test_parameters_hooks_and_mode_stay():
    model = Network().eval()
    calls = []
    model.head.register_forward_hook(lambda *_: calls.append("head"))
    before = dict(model.named_parameters())
    convert(model, "W")
    after = dict(model.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)
    model.head(normal(32, 32))
    assert calls == ["head"]
    assert not any(module.training for module in model.modules())


def test_the_root_itself_can_be_a_linear_layer():
    layer = nn.Linear(IN, OUT)
    assert list(convert(layer, "F+D+W").layers) == [""]
    assert isinstance(layer, MXFP4Linear)


def test_a_layer_in_two_places_is_one():
    shared = nn.Linear(32, 32)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    assert list(convert(model, "F+D+W").layers) == ["0"]
    assert model[0] is model[2] is shared


@pytest.mark.parametrize("method", ["weight_norm", "prune"])
def test_a_weight_that_a_hook_computes_is_used(method):
    model = network()
    if method == "prune":
        prune.random_unstructured(model[0], "weight", 0.5)
    else:
        nn.utils.weight_norm(model[0])
    convert(model, "F+D+W")
    model(normal(TOKENS, IN)).sum().backward()
    trained = model[0].weight_v if method == "weight_norm" else model[0].weight_orig
    assert trained.grad.count_nonzero() > 0


def test_state_dicts_are_those_of_the_plain_model():
    plain, model = network(), network()
    convert(model, EVERY_SR)
    assert model.state_dict().keys() == plain.state_dict().keys()
    plain.load_state_dict(model.state_dict())


def test_a_converted_layer_is_not_converted_again():
    model = Network()
    convert(model, "F+D+W", include=["layers.*"])
    mx = convert(model, "fp8")
    assert list(mx.layers) == ["head"]
    assert "converted before" in repr(mx)
    with pytest.raises(ConfigError, match=r"converted already; call set_recipe\(\) or revert\(\)"):
        convert(model, "bf16")


def test_the_recipe_can_be_changed_and_taken_back():
    model, x = network(), normal(TOKENS, IN)
    plain = gradients(model, x)
    mx = convert(model, "F+D+W")
    rough = gradients(model, x)
    assert "recipe=F+D+W" in repr(model)
    mx.set_recipe("W+M(W:x)")
    assert "recipe=W+M(W:x)" in repr(model)
    assert not same(gradients(model, x), rough)
    with pytest.raises(ConfigError, match="no recipe is called"):
        mx.set_recipe("G")
    mx.revert()
    assert converted_names(model) == []
    assert same(gradients(model, x), plain)
    assert vars(model[0]).keys() == vars(nn.Linear(2, 2)).keys()


def test_a_recipe_that_does_not_fit_changes_nothing():
    mx = convert(nn.ModuleDict({"layer": nn.Linear(40, 10)}), "W")
    with pytest.raises(ConfigError, match="dimension of 40"):
        mx.set_recipe("F")
    assert mx.recipe.name == "W"


def test_the_state_brings_recipe_and_seed_back():
    first = convert(network(), W_SR, seed=5)
    with first.step(3):
        expected = gradients(first._model)
    second = convert(network(), "F+D+W")
    second.load_state_dict(first.state_dict())
    with second.step(3):
        assert same(gradients(second._model), expected)
    with pytest.raises(ConfigError, match=r"of other layers than these: \['2'\]"):
        convert(network(), "F", exclude=["2"]).load_state_dict(first.state_dict())


@pytest.mark.parametrize("is_compiled", [False, True])
def test_a_converted_model_can_be_saved_and_copied(is_compiled):
    model = network()
    mx = convert(model, W_SR, seed=2, is_compiled=is_compiled)
    with mx.step(1):
        expected = gradients(model)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        with conversion_of(other, seed=2).step(1):
            assert same(gradients(other), expected)


# --- exact ---------------------------------------------------------------------------------


def test_exact_is_the_plain_model_for_as_long_as_it_lasts():
    plain, model, x = network(), network(), normal(TOKENS, IN)
    mx = convert(model, "F+D+W+SR(F:x)")
    with mx.exact():
        assert torch.equal(model(x), plain(x))
        assert same(gradients(model, x), gradients(plain, x))
        assert "recipe=exact" in repr(model)
        with mx.exact():
            pass
        assert torch.equal(model(x), plain(x))
    with mx.step(0):
        assert not torch.equal(model(x), plain(x))


# --- random numbers ------------------------------------------------------------------------


def at(model, mx, *moment, x=None, **options):
    with mx.step(*moment, **options):
        return gradients(model, x)


def test_keys_are_a_function_of_the_moment():
    model = network()
    mx = convert(model, W_SR, seed=1)
    first = at(model, mx, 3)
    torch.manual_seed(99)
    assert same(at(model, mx, 3), first)
    others = [
        at(model, mx, 4),
        at(model, mx, 3, 1),
        at(model, mx, 3, rank=1),
        at(model, mx, 3, "evaluation"),
    ]
    mx.seed = 2
    others.append(at(model, mx, 3))
    everything = [first, *others]
    assert not any(same(one, other) for i, one in enumerate(everything) for other in everything[:i])


def test_a_layer_has_its_numbers_whatever_else_is_converted():
    keys = []
    for include in (["*"], ["2"]):
        mx = convert(network(), W_SR, include=include)
        with mx.step(0):
            keys.append(int(mx.layers["2"].key))
    assert keys[0] == keys[1]


def test_no_key_is_met_twice():
    model = network()
    mx = convert(model, W_SR)
    keys = []
    for step in range(20):
        for micro_batch in range(5):
            for rank in range(4):
                with mx.step(step, micro_batch, rank=rank):
                    keys += [int(layer.key) for layer in mx.layers.values()]
    assert len(set(keys)) == len(keys) == 20 * 5 * 4 * 2


def test_random_numbers_without_a_step_are_refused():
    model, x = network(), normal(TOKENS, IN)
    mx = convert(model, W_SR)
    with pytest.raises(ConfigError, match=r"draws random numbers in W .* `with mx\.step"):
        model(x)
    with mx.step(0):
        model(x)
    with pytest.raises(ConfigError, match=r"draws random numbers in W"):
        model(x)
    with torch.no_grad():
        model(x)  # Fprop draws none
    mx.set_recipe("F+SR(F:x)")
    with torch.no_grad(), pytest.raises(ConfigError, match=r"in F and .*`with mx\.exact\(\):`"):
        model(x)
    mx.set_recipe("F+D+W+RHT16-fixed(F)+DHT16(W)")
    model(x)  # nothing is drawn


def test_a_second_forward_pass_under_one_key_is_refused():
    model, x = network(), normal(TOKENS, IN)
    mx = convert(model, W_SR)
    with mx.step(0):
        model(x).sum().backward()
        with torch.no_grad():
            model(x)
        with pytest.raises(ConfigError, match=r"second forward pass .* micro_batch=i"):
            model(x)
    with (
        mx.step(0),
        pytest.raises(ConfigError, match=r"step 1 begins inside \(0, 0, 0, 0\)"),
        mx.step(1),
    ):
        pass


def test_backward_may_come_after_the_step():
    """Two losses, or a pipeline: a product's key is the one of its forward pass."""
    model, x = network(), normal(TOKENS, IN)
    mx = convert(model, W_SR)
    expected = [sum(pair) for pair in zip(at(model, mx, 0, 0), at(model, mx, 0, 1), strict=True)]
    model.zero_grad()
    with mx.step(0, 0):
        first = model(x).square().sum()
    with mx.step(0, 1):
        second = model(x).square().sum()
    (second + first).backward()
    for parameter, wanted in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, wanted)


def test_micro_batches_with_keys_of_their_own_average_the_noise():
    """The same micro-batch 16 times: with one key its error stays, with 16 it shrinks fourfold."""
    model, x = nn.Sequential(nn.Linear(IN, OUT)), normal(TOKENS, IN)
    exact = gradients(model, x)[0]
    mx = convert(model, "W+SR(3/4)(W:dy,W:x)")

    def error(micro_batches):
        total = torch.zeros_like(exact)
        for micro_batch in micro_batches:
            with mx.step(0, micro_batch):
                total += gradients(model, x)[0]
        return float((total / 16 - exact).norm() / exact.norm())

    assert error(range(16)) < 0.35 * error([0] * 16)


# --- recomputation -------------------------------------------------------------------------


class Checkpointed(nn.Module):
    """The network whose inside is computed again."""

    def __init__(self, use_reentrant):
        super().__init__()
        self.inside, self.use_reentrant, self.is_recomputed = network(), use_reentrant, True

    def forward(self, x):
        if not self.is_recomputed:
            return self.inside(x)
        return checkpoint(self.inside, x, use_reentrant=self.use_reentrant)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_what_is_computed_again_rounds_as_it_did(use_reentrant):
    x = normal(TOKENS, IN).requires_grad_()
    model = Checkpointed(use_reentrant)
    mx = convert(model, EVERY_SR)
    again = at(model, mx, 1, x=x)
    model.is_recomputed = False
    assert same(at(model, mx, 1, x=x), again)
    assert not same(at(model, mx, 2, x=x), again)


def test_recomputation_in_another_micro_batch_is_refused():
    model, x = Checkpointed(use_reentrant=False), normal(TOKENS, IN).requires_grad_()
    mx = convert(model, EVERY_SR)
    with mx.step(0, 0):
        loss = model(x).sum()
    with mx.step(0, 1), pytest.raises(ConfigError, match=r"computed again in another micro-batch"):
        loss.backward()
    with mx.step(0, 0):
        loss = model(x).sum()
    with pytest.raises(ConfigError, match=r"has no key here"):
        loss.backward()


# --- tokens --------------------------------------------------------------------------------


NUMS = [33, 17, 1, 144, 0]


@pytest.mark.parametrize("num_tokens", NUMS)
@pytest.mark.parametrize("recipe", ["W", "W+DHT32(W)", "W+2D(W:dy,W:x)", "W+SR(W:dy)", "W+M(W:x)"])
def test_padding_is_adding_zeros(num_tokens, recipe):
    """To the product of Wgrad, bit for bit; a mean is taken out before, over real tokens."""
    how = arithmetic_of(recipe_of(recipe), tokens="pad")
    dy, x = normal(num_tokens, OUT), normal(num_tokens, IN, seed=1)
    if "M(" in recipe and num_tokens:
        x = x - x.mean(0)
    key = torch.tensor(1, dtype=torch.int32)
    padded = [torch.cat([one, torch.zeros(-num_tokens % 32, one.shape[1])]) for one in (dy, x)]
    result, expected = how.product("W", dy, x, key), how.product("W", *padded, key)
    if "M(" in recipe:
        torch.testing.assert_close(result, expected, rtol=0.05, atol=0.05)
    else:
        assert torch.equal(result, expected)


@pytest.mark.parametrize("num_tokens", NUMS)
@pytest.mark.parametrize("recipe", ["F+D+W", "F+D+W+2D(F:x,W:x)+DHT16(D)", "fp8", "W+M(W:x)"])
def test_any_number_of_tokens_can_be_padded(num_tokens, recipe):
    plain, model, x = network(), network(), normal(num_tokens, IN)
    convert(model, recipe, tokens="pad")
    for result, exact in zip(gradients(model, x), gradients(plain, x), strict=True):
        assert (result - exact).norm() <= 0.6 * exact.norm()


def test_the_mean_is_one_over_real_tokens():
    layer = nn.Linear(IN, OUT)
    x = torch.full((33, IN), 0.7)  # equal to its mean, so that nothing is left to round
    convert(layer, "W+M(W:x)", tokens="pad")
    layer(x).square().sum().backward()
    rounded, plain = layer.weight.grad.clone(), nn.Linear(IN, OUT)
    plain.load_state_dict(layer.state_dict())
    plain(x).square().sum().backward()
    torch.testing.assert_close(rounded, plain.weight.grad, rtol=1e-5, atol=1e-4)


def test_tokens_that_cannot_be_grouped_are_refused_at_the_first_forward():
    model = network()
    convert(model, "F+D+W")
    with pytest.raises(ConfigError, match=r"33 tokens, .* by 32; .*tokens='pad'"):
        model(normal(33, IN))
    with torch.no_grad():
        model(normal(33, IN))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model(normal(33, IN).requires_grad_()).sum().backward()  # frozen: no Wgrad


# --- ways to call --------------------------------------------------------------------------


def test_a_gradient_of_a_gradient_is_refused():
    model, x = network(), normal(TOKENS, IN).requires_grad_()
    mx = convert(model, "F+D+W")
    with pytest.raises(ConfigError, match=r"create_graph=True.*mx\.exact"):
        torch.autograd.grad(model(x).sum(), x, create_graph=True)
    with mx.exact():
        (first,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
        first.sum().backward()


def test_transforms_of_functions_are_refused_in_words():
    model, x = network(), normal(4, 32, IN)
    convert(model, "F+D+W")
    parameters = dict(model.named_parameters())

    def loss(values, one):
        return torch.func.functional_call(model, values, (one,)).sum()

    with pytest.raises(ConfigError, match=r"torch\.func .*mx\.exact"):
        torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x[0], x[1])
        with pytest.raises(ConfigError, match=r"forward-mode"):
            model(dual)


def test_inference_before_training_leaves_nothing_behind():
    model, x = network(), normal(TOKENS, IN)
    mx = convert(model, "F+D+W+RHT32(F,D,W)+SR(W:dy)")
    with torch.inference_mode(), mx.step(0):
        model(x)
    with mx.step(1):
        gradients(model, x)


def test_a_model_made_on_the_meta_device_needs_no_care():
    with torch.device("meta"):
        model = network()
    mx = convert(model, W_SR)
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    assert same(at(model, mx, 0), at(model, mx, 0))
