"""A recipe from the name of its arm: `F+D+W+SR(W:dy)+DHT16(W)`, as configurations spell it.

This reads what `Recipe.name` writes, and nothing else: a name that would be spelt otherwise is
refused with the right spelling, so that there is one name for an arm everywhere.
"""

import re
from typing import Any, NoReturn

from pydantic import ValidationError

from blockwise.config.recipes import (
    Dgrad,
    Fprop,
    Gemm,
    GroupShape,
    Precision,
    Recipe,
    Rounding,
    ScaleRule,
    Wgrad,
)
from blockwise.errors import ConfigError

FIELDS: dict[str, tuple[str, type[Gemm]]] = {
    "F": ("fprop", Fprop),
    "D": ("dgrad", Dgrad),
    "W": ("wgrad", Wgrad),
}
OPERAND_WORDS: dict[str, dict[str, Any]] = {
    "M": {"centred": True},
    "SR": {"rounding": Rounding.SR},
    "SR(3/4)": {"rounding": Rounding.SR34},
    **{rule.value: {"scale_rule": rule} for rule in ScaleRule if rule != ScaleRule.EVEN},
    "2D": {"groups": GroupShape.SQUARE},
}
UNQUANTIZED = "unquantized"
ROTATION = re.compile(r"(DHT|RHT)(16|32)(?:-(fixed|mismatched))?")
REMEDY = re.compile(r"(?P<word>.+)\((?P<places>[^()]+)\)")
EXAMPLES = "e.g. F+D+W, W+SR(W:dy), F+D+W+M(W:x)+DHT16(W), fp8"


def recipe(name: str) -> Recipe:
    """The recipe that an arm's name stands for.

    Args:
        name: as `Recipe.name` gives it.

    Raises:
        ConfigError: a name that stands for none, or that is spelt otherwise.
    """
    if name in {one.value for one in Precision} - {Precision.MXFP4.value}:
        return Recipe(precision=Precision(name))
    parts = re.split(r"\+(?![^(]*\))", name)
    letters = [part for part in parts if part in FIELDS]
    if not letters or len(set(letters)) != len(letters):
        _refuse(name, "it names no GEMM, or one twice")
    gemms: dict[str, dict[str, Any]] = {letter: {} for letter in letters}
    for part in parts[len(letters) :]:
        _add_remedy(name, part, gemms)
    try:
        found = Recipe.model_validate({FIELDS[letter][0]: gemm for letter, gemm in gemms.items()})
    except ValidationError as error:
        _refuse(name, str(error.errors()[0]["msg"]))
    if found.name != name:
        _refuse(name, f"this recipe is spelt {found.name!r}")
    return found


def _add_remedy(name: str, part: str, gemms: dict[str, dict[str, Any]]) -> None:
    match = REMEDY.fullmatch(part)
    if match is None:
        _refuse(name, f"{part!r} does not say in brackets where it acts")
    word, places = match["word"], match["places"].split(",")
    rotation = ROTATION.fullmatch(word)
    if rotation is None and word not in OPERAND_WORDS and word != UNQUANTIZED:
        known = [*OPERAND_WORDS, UNQUANTIZED, "DHT16", "DHT32", "RHT16", "RHT32"]
        _refuse(name, f"{word!r} is none of {', '.join(known)}")
    for place in places:
        letter, _, operand = place.partition(":")
        gemm = gemms.get(letter)
        is_operand = operand in FIELDS[letter][1].model_fields if letter in FIELDS else False
        if gemm is None or is_operand == (rotation is not None) or operand == "rotation":
            what = "a GEMM of the name" if rotation else "an operand of one, e.g. W:dy"
            _refuse(name, f"{word} acts on {place!r}, which is not {what}")
        if rotation is not None:
            gemm["rotation"] = _rotation(rotation)
        elif word == UNQUANTIZED:
            gemm[operand] = None
        else:
            gemm[operand] = {**(gemm.get(operand) or {}), **OPERAND_WORDS[word]}


def _rotation(match: re.Match[str]) -> dict[str, Any]:
    kind, size, signs = match.groups()
    chosen = {"signs": signs or "redrawn"} if kind == "RHT" else {}
    return {"kind": kind.lower(), "size": int(size), **chosen}


def _refuse(name: str, reason: str) -> NoReturn:
    raise ConfigError(f"no recipe is called {name!r}: {reason}; name arms as they do, {EXAMPLES}")
