"""What every configuration model shares: unknown keys are refused, values never change."""

import functools
from pathlib import Path
from typing import Annotated

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
