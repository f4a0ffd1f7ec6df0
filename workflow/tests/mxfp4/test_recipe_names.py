"""A recipe is read from the name that it has, and from no other."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from test_recipes import NAMES, recipes

from blockwise.config.recipe_names import recipe
from blockwise.config.recipes import Recipe
from blockwise.errors import ConfigError

CONFIG = Path(__file__).parents[3] / "config" / "config.yaml"


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_read_as_it_is_written(name):
    assert recipe(name) == Recipe(**NAMES[name])


@given(recipes())
@settings(deadline=None)
def test_every_recipe_is_found_by_its_name(wanted):
    assert recipe(wanted.name) == wanted


def test_every_arm_of_the_configuration_can_be_asked_for_by_name():
    arms = yaml.safe_load(CONFIG.read_text())["mxfp4"]["arms"]
    assert len(arms) > 20
    for name, fields in arms.items():
        assert recipe(name) == Recipe(**fields)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "it names no GEMM"),
        ("mxfp4", "it names no GEMM"),
        ("w", "it names no GEMM"),
        ("W+W", "or one twice"),
        ("D+F", "spelt 'F+D'"),
        ("W+SR(W:x,W:dy)", "spelt 'W+SR(W:dy,W:x)'"),
        ("W+even(W:dy)", "'even' is none of M, SR, SR(3/4)"),
        ("W+DHT16", "'DHT16' does not say in brackets where it acts"),
        ("W+DHT64(W)", "'DHT64' is none of"),
        ("W+DHT16-fixed(W)", "spelt 'W+DHT16(W)'"),
        ("W+DHT16(F)", "DHT16 acts on 'F', which is not a GEMM of the name"),
        ("W+SR(W)", "SR acts on 'W', which is not an operand of one, e.g. W:dy"),
        ("W+SR(W:w)", "SR acts on 'W:w', which is not an operand"),
        ("W+SR(W:rotation)", "SR acts on 'W:rotation', which is not an operand"),
        ("W+DHT16(W:x)", "DHT16 acts on 'W:x', which is not a GEMM"),
        ("W+SR(D:dy)", "SR acts on 'D:dy', which is not an operand"),
        ("SR(W:dy)+W", "does not"),
        ("W+unquantized(W:dy,W:x)", "both operands are null"),
    ],
)
def test_a_name_of_nothing_is_refused(name, reason):
    with pytest.raises(ConfigError, match=re.escape(reason)) as refusal:
        recipe(name)
    assert "e.g. F+D+W" in str(refusal.value)
