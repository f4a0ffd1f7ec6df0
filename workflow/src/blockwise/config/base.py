"""What every configuration model shares: unknown keys are refused, values never change."""

import ast
import functools
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

UNPINNED = "unpinned"
"""A revision or digest that nobody has verified; `make pin` resolves it online."""

SAFE_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
"""Names become file names and Snakemake wildcards, so they hold nothing special."""

Name = Annotated[str, Field(pattern=SAFE_NAME)]
PositiveTokens = Annotated[int, Field(gt=0)]


def modules_of(package: str) -> list[str]:
    """Names of the modules of a package of ours, by its folder: a configuration loads no code."""
    return list(_listed(package))


def constant_of(module: str, name: str, *, default: Any) -> Any:
    """What a module of ours assigns to a name at its top level; its text is read, not run.

    Args:
        module: its full name.
        name: of the constant, which is a literal.
        default: of a module without it.
    """
    path = Path(__file__).parents[1].joinpath(*module.split(".")[1:]).with_suffix(".py")
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign):
            names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
            if name in names:
                return ast.literal_eval(statement.value)
    return default


@functools.cache  # every specification of a cell is held against two of these lists
def _listed(package: str) -> tuple[str, ...]:
    folder = Path(__file__).parents[1].joinpath(*package.split(".")[1:])
    return tuple(sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__"))


class ConfigModel(BaseModel):
    """Base of all configuration models."""

    # A number is fine where text is wanted: `--config` cannot quote, and files often do not.
    # Infinity and NaN are no values of any key, and no JSON of a record can hold them.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=False,
        coerce_numbers_to_str=True,
        allow_inf_nan=False,
    )
