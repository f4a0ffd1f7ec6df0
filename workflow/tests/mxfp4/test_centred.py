"""An operand whose mean is taken out: what is rounded has none, and the product gets it back."""

import pytest
import torch

from blockwise.config.recipes import Operand, Recipe
from blockwise.mxfp4.arithmetic import PLACES, Arithmetic
from blockwise.mxfp4.gemm_errors import FLOAT32, operand_statistics
from blockwise.mxfp4.operand import compiled_prepare, prepare_operand
from blockwise.mxfp4.quantize import fake_quantize

TOKENS, IN, OUT = 128, 64, 96
KEY = torch.tensor(3, dtype=torch.int32)
CENTRED = {"centred": True}
DHT16 = {"kind": "dht", "size": 16}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = normal(TOKENS, IN) + 3 * normal(1, IN, seed=1)  # every feature has a mean over the tokens
DY = normal(TOKENS, OUT, seed=2) + normal(1, OUT, seed=3)


def wgrad(recipe, **options):
    return Arithmetic(Recipe(wgrad=recipe), **options).product("W", DY, X, KEY)


def relative_error(product):
    exact = DY.double().T @ X.double()
    return float((product - exact).norm() / exact.norm())


def test_the_product_by_hand():
    mean = X.mean(0)
    quantized = fake_quantize(DY, 0, Operand()).T @ fake_quantize(X - mean, 0, Operand())
    expected = quantized + torch.outer(DY.sum(0), mean)
    torch.testing.assert_close(wgrad({"x": CENTRED}), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "recipe",
    [
        {"x": CENTRED, "dy": None},
        {"x": CENTRED, "dy": CENTRED},
        {"x": None, "dy": CENTRED},
        {"x": {**CENTRED, "rounding": "sr34"}, "dy": {"rounding": "sr34"}},
        {"x": {**CENTRED, "groups": "2d"}},
        {"x": CENTRED, "rotation": DHT16},
    ],
    ids=["x", "both", "dy", "prescaled", "squares", "rotated"],
)
def test_nothing_is_lost_but_rounding(recipe):
    """A mean that came back twice, or scaled, would be an error of the order of the product."""
    assert relative_error(wgrad(recipe)) < 0.2


def test_an_operand_that_is_its_mean_gives_the_exact_product():
    constant = torch.full((TOKENS, IN), 0.7)
    product = Arithmetic(Recipe(wgrad={"x": CENTRED})).product("W", DY, constant, KEY)
    torch.testing.assert_close(product, DY.T @ constant, rtol=1e-5, atol=1e-4)


def test_every_gemm_can_be_centred():
    """Fprop and Dgrad sum over features: the mean there is one number a row."""
    for letter, name in (("F", "fprop"), ("D", "dgrad")):
        left = normal(TOKENS, IN) + 2.0
        right = normal(OUT, IN, seed=5) if letter == "F" else normal(IN, OUT, seed=5)
        operand = {"x": CENTRED} if letter == "F" else {"dy": CENTRED}
        product = Arithmetic(Recipe(**{name: operand})).product(letter, left, right, KEY)
        exact = FLOAT32.product(letter, left, right, KEY)
        assert (product - exact).norm() / exact.norm() < 0.2
        assert (product - exact).norm() > 0


def test_it_helps_where_there_is_a_mean_and_a_rotation_no_longer_gathers_it():
    plain, rotated = relative_error(wgrad({})), relative_error(wgrad({"rotation": DHT16}))
    centred = relative_error(wgrad({"x": CENTRED}))
    both = relative_error(wgrad({"x": CENTRED, "rotation": DHT16}))
    assert rotated > plain  # the constant row of the matrix gathers the mean
    assert centred < plain
    assert both < plain


def test_compiled_is_eager_but_for_the_order_of_the_sum():
    """The mean is a sum: compiled, its last bit may be another, and a value its FP4 neighbour."""
    operand = Operand(**CENTRED)
    arguments = (X, PLACES["W"][1], operand, None, KEY)
    compiled, eager = compiled_prepare()(*arguments), prepare_operand(*arguments)
    assert (compiled != eager).float().mean() < 0.01
    torch.testing.assert_close(
        wgrad({"x": CENTRED}, prepare=compiled_prepare()), wgrad({"x": CENTRED}), rtol=0, atol=2.0
    )


def test_bfloat16_operands_keep_their_type():
    arithmetic = Arithmetic(Recipe(wgrad={"x": CENTRED}))
    product = arithmetic.product("W", DY.bfloat16(), X.bfloat16(), KEY)
    assert product.dtype == torch.bfloat16
    assert relative_error(product) < 0.2


def test_the_statistics_are_of_what_is_rounded():
    """One feature far away: its mean is all there is of it, so nothing saturates or vanishes."""
    far = X.clone()
    far[:, 0] += 1000.0
    plain, centred = (
        operand_statistics("W", (DY, far), Recipe(wgrad={"x": operand}), KEY)[1]
        for operand in ({}, CENTRED)
    )
    assert plain.kurtosis > 40
    assert centred.kurtosis < 5
