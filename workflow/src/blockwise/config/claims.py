"""Claims: what is said, how it is measured here, and the rule that decides.

A claim is an entry of `config/claims.yaml`. Nothing about a verdict is written by hand: the rule
of the entry reads the interval of every point that its metric finds in the run's tables.
"""

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from blockwise.config.base import ConfigModel, Name
from blockwise.config.claim_metrics import Metric
from blockwise.config.load import read_yaml
from blockwise.errors import ConfigError


class Paper(StrEnum):
    """Who says it: a paper, by its arXiv number, or we."""

    COMPACTION = "2605.23296"
    MXFP4 = "2605.09825"
    OURS = "ours"

    @property
    def section(self) -> str:
        """Where the ledger lists it: our own claims stand apart."""
        return "our claims" if self is Paper.OURS else "claims of the papers"


class Grade(StrEnum):
    """How sure it is that somebody says so."""

    PRIMARY = "primary"  # its own abstract or opening
    SECONDARY = "secondary"  # a reading of it by somebody else
    IMPLIED = "implied"  # nobody says it, but what is said is of little use without it
    OURS = "ours"  # a claim of this repository


class Reported(ConfigModel):
    """What is reported."""

    text: str = Field(min_length=1, description="In its own unit, e.g. 2.13x; or `no number`.")
    effect: float | None = Field(
        None, description="The same on the scale of our metric, for the power note."
    )
    grade: Grade


class AboveRule(ConfigModel):
    """Supported where the whole interval lies above, contradicted where it lies below."""

    kind: Literal["above"]
    than: float

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which the interval supports the claim."""
        return self.than, math.inf

    @property
    def inside(self) -> str:
        """Where that is, in words."""
        return f"above {self.than:g}"

    @property
    def outside(self) -> str:
        """Where the interval contradicts it, in words."""
        return f"below {self.than:g}"


class BelowRule(ConfigModel):
    """Supported where the whole interval lies below, contradicted where it lies above."""

    kind: Literal["below"]
    than: float

    @property
    def bounds(self) -> tuple[float, float]:
        """As of `AboveRule`."""
        return -math.inf, self.than

    @property
    def inside(self) -> str:
        """As of `AboveRule`."""
        return f"below {self.than:g}"

    @property
    def outside(self) -> str:
        """As of `AboveRule`."""
        return f"above {self.than:g}"


class WithinRule(ConfigModel):
    """Supported where the whole interval lies inside, contradicted where it lies outside."""

    kind: Literal["within"]
    low: float
    high: float

    @property
    def bounds(self) -> tuple[float, float]:
        """As of `AboveRule`."""
        return self.low, self.high

    @property
    def inside(self) -> str:
        """As of `AboveRule`."""
        return f"within {self.low:g} to {self.high:g}"

    @property
    def outside(self) -> str:
        """As of `AboveRule`."""
        return f"outside {self.low:g} to {self.high:g}"


Rule = Annotated[AboveRule | BelowRule | WithinRule, Field(discriminator="kind")]


class Claim(ConfigModel):
    """One claim: of a paper, implied by one, or ours."""

    paper: Paper
    locator: str = Field(description="Where in the paper, e.g. abstract, Table 9.")
    statement: str = Field(min_length=1, description="In our words.")
    reported: Reported
    metric: Metric
    unit: str = Field(min_length=1, description="Unit of the metric, e.g. s or nats a token.")
    rule: Rule
    min_num_parameters: float = Field(
        ge=0, description="Smaller models cannot decide it: not testable at this scale."
    )
    min_window_tokens: int = Field(
        0, ge=0, description="Nor can shorter histories, thresholds or sequences."
    )
    scale_reason: str = Field(min_length=1, description="Why this scale; shown with the verdict.")
    min_backbones: int = Field(
        1, ge=1, description="Distinct backbones whose points must be able to decide."
    )
    figure: Name = Field(description="The figure to look at.")


_CLAIMS: TypeAdapter[dict[Name, Claim]] = TypeAdapter(dict[Name, Claim])


def load_claims(file: Path) -> dict[str, Claim]:
    """Read the claims by their id.

    Raises:
        ConfigError: the file is no list of claims; every problem is named.
    """
    try:
        return _CLAIMS.validate_python(read_yaml(file))
    except ValidationError as error:
        problems = "\n".join(
            f"  - {'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()
        )
        raise ConfigError(f"{file} is refused:\n{problems}") from None
