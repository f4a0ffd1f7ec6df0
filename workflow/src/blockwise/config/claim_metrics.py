"""Where a claim's points are found in the tables of a run, and what their n counts."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from blockwise.config.base import ConfigModel, Name

Value = str | int | float | bool
Where = dict[str, Value | list[Value]]
"""Column: the value, or the values, that its rows have."""


class Replication(StrEnum):
    """What the clusters of an interval are, so what its n counts."""

    SERVER_START = "server start"
    SESSION = "session and seed"
    TEXT = "conversation or session"  # LoCoMo: conversation; HotpotQA: session
    REPEAT = "repeat of one input"
    SEED = "seed of a training"
    ROUND = "round of one process"  # never independent of each other


class _Metric(ConfigModel):
    """Where the points of a claim are found."""

    table: Name = Field(description="A table of the run, without .csv.")
    where: Where = Field(default_factory=dict)
    at_most: dict[str, float] = Field(
        default_factory=dict, description="Column: the largest value that its rows have."
    )
    without: dict[str, str] = Field(
        default_factory=dict, description="Column: words that its rows do not contain."
    )
    replication: Replication = Field(description="What its n counts.")
    gate: str = Field("gate", description="Column that says whether a verdict may rest on a row.")

    @property
    def is_on_log_scale(self) -> bool:
        """Whether its intervals are symmetric on the log scale."""
        return False


class EstimateMetric(_Metric):
    """Estimates that stand in the table with their intervals."""

    kind: Literal["estimate"]
    name: str = Field(description="Columns NAME_mean or NAME_median, NAME_low, NAME_high, ...")
    suffix: str = Field("", description="How these columns end: the unit, e.g. _frac.")
    is_ratio: bool = Field(False, description="Its interval is symmetric on the log scale.")
    by: list[str] = Field(
        default_factory=list,
        description="Rows that agree in these columns repeat one estimate; left out: each row is "
        "a point.",
    )
    null: str = Field(
        "", description="Columns NULL_low, NULL_high: the interval of a training's null arm."
    )

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
    own: Where
    reference: Where
    floor: Where = Field(
        default_factory=dict,
        description="Rows of the last tokens: the same difference with them in place of own stands "
        "beside.",
    )
    cluster: str
    paired_by: list[str] = Field(
        default_factory=list,
        description="Columns that pair rows inside a cluster; rows that agree are averaged first.",
    )
    by: list[str]


Metric = Annotated[EstimateMetric | SlopeMetric | DifferenceMetric, Field(discriminator="kind")]
