"""Claims: what the papers say, how it is measured here, and the rule that decides.

A claim is an entry of `config/claims.yaml`. Nothing about a verdict is written by hand: the rule
of the entry reads the interval of every point that its metric finds in the run's tables.
"""

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from blockwise.config.base import ConfigModel, Name
from blockwise.config.load import read_yaml
from blockwise.errors import ConfigError

Value = str | int | float | bool


class Paper(StrEnum):
    """The papers, by their arXiv number."""

    COMPACTION = "2605.23296"
    MXFP4 = "2605.09825"


class Grade(StrEnum):
    """How sure it is that the paper says so."""

    PRIMARY = "primary"  # its own abstract or opening
    SECONDARY = "secondary"  # a reading of it by somebody else


class Reported(ConfigModel):
    """What the paper reports."""

    text: str = Field(min_length=1, description="In its own unit, e.g. 2.13x; or `no number`.")
    effect: float | None = Field(
        None, description="The same on the scale of our metric, for the power note."
    )
    grade: Grade


class _Metric(ConfigModel):
    """Where the points of a claim are found."""

    table: Name = Field(description="A table of the run, without .csv.")
    where: dict[str, Value | list[Value]] = Field(
        default_factory=dict, description="Column: the value, or the values, that its rows have."
    )

    @property
    def is_on_log_scale(self) -> bool:
        """Whether its intervals are symmetric on the log scale."""
        return False


class EstimateMetric(_Metric):
    """Estimates that stand in the table with their intervals; every row is a point."""

    kind: Literal["estimate"]
    name: str = Field(description="Columns NAME_mean or NAME_median, NAME_low, NAME_high, ...")
    suffix: str = Field("", description="How these columns end: the unit, e.g. _frac.")
    is_ratio: bool = Field(False, description="Its interval is symmetric on the log scale.")

    @property
    def is_on_log_scale(self) -> bool:
        """As configured."""
        return self.is_ratio


class SlopeMetric(_Metric):
    """Least-squares slope of one column on another inside each cluster, then over clusters."""

    kind: Literal["slope"]
    x: str
    y: str
    cluster: str = Field(description="Column that says which rows are one cluster.")
    by: list[str] = Field(description="Columns whose values tell points apart.")
    x_unit: float = Field(1.0, gt=0, description="The slope is that of so many units of x.")


class DifferenceMetric(_Metric):
    """A column's difference between two kinds of rows inside each cluster, then over clusters."""

    kind: Literal["difference"]
    value: str
    own: dict[str, Value | list[Value]]
    reference: dict[str, Value | list[Value]]
    cluster: str
    paired_by: list[str] = Field(
        default_factory=list,
        description="Columns that pair rows inside a cluster; rows that agree are averaged first.",
    )
    by: list[str]


Metric = Annotated[EstimateMetric | SlopeMetric | DifferenceMetric, Field(discriminator="kind")]


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
    """One claim of a paper."""

    paper: Paper
    locator: str = Field(description="Where in the paper, e.g. abstract, Table 9.")
    statement: str = Field(min_length=1, description="In our words.")
    reported: Reported
    metric: Metric
    rule: Rule
    min_num_parameters: float = Field(
        0, ge=0, description="Smaller models cannot decide it: not testable at this scale."
    )
    scale_reason: str = Field("", description="Why not; shown with the verdict.")
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
