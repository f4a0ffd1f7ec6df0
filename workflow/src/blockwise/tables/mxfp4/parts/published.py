"""What was measured on a published model: its errors whole again, and what its rows say of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from blockwise.config.pretrained import LayerErrorsExperiment
from blockwise.errors import ArtifactError
from blockwise.mxfp4.records import ErrorStatistics, LayerOperand
from blockwise.tables.columns import Column, ColumnKind, number, text
from blockwise.tables.inputs import TableInputs
from blockwise.tables.mxfp4.parts.training import CAPTION, EXPERIMENT

GEMM = text("gemm", "F: Fprop, Y = X W^T; D: Dgrad, dX = dY W; W: Wgrad, dW = dY^T X.")
GEMMS = ("W", "D", "F")
"""The order of rows: Wgrad multiplies no weight, so it is as the model's own precision gives it."""
PUBLISHED_SCOPE: tuple[Column, ...] = (
    EXPERIMENT,
    CAPTION,
    number("num_parameters", "Parameters of the published model.", ColumnKind.EXACT, "parameters"),
)
"""Whose tensors a row sums up."""
SIDES = {
    "F": (("x", "mean_over_columns_frac"), ("w", "mean_over_columns_frac")),
    "D": (("dy", "mean_over_columns_frac"), ("w", "mean_over_rows_frac")),
    "W": (("dy", "mean_over_rows_frac"), ("x", "mean_over_rows_frac")),
}
"""The operands of each GEMM, and which of their means is taken along the summed dimension."""


@dataclass(frozen=True)
class PublishedErrors:
    """All parts of one experiment."""

    name: str
    settings: LayerErrorsExperiment
    scope: Mapping[str, Any]  # values of `PUBLISHED_SCOPE`
    num_batches: int
    errors: Sequence[ErrorStatistics]  # of every layer, in the model's order
    operands: Mapping[tuple[str, str], LayerOperand]  # by layer and operand

    def layers(self) -> list[str]:
        """Every layer, in the model's order."""
        return list(dict.fromkeys(one.layer for one in self.errors))

    def of(self, gemm: str, arm: str) -> dict[str, ErrorStatistics]:
        """Errors of one arm in one GEMM, by layer."""
        return {one.layer: one for one in self.errors if (one.gemm, one.arm) == (gemm, arm)}

    def mean_fracs(self, gemm: str, layer: str) -> tuple[float, float]:
        """Of both operands: the share of the mean along the dimension that the GEMM sums over."""
        left, right = (
            getattr(self.operands[layer, operand], share) for operand, share in SIDES[gemm]
        )
        return left, right


def published_scope(inputs: TableInputs, experiment: str) -> dict[str, Any]:
    """Values of `PUBLISHED_SCOPE`."""
    study = inputs.mxfp4
    assert study is not None and study.pretrained is not None
    return {
        "experiment": experiment,
        "caption": f"{study.pretrained.caption}; {study.caption}",
        "num_parameters": study.pretrained.num_parameters,
    }


def published_errors(inputs: TableInputs) -> list[PublishedErrors]:
    """The experiments that were measured, in the order of the configuration.

    Raises:
        ArtifactError: an experiment's errors are of arms that it does not name.
    """
    experiments = inputs.mxfp4.experiments if inputs.mxfp4 else {}
    found = []
    for name, settings in experiments.items():
        parts = [one for one in inputs.layer_errors if one.experiment == name]
        if not isinstance(settings, LayerErrorsExperiment) or not parts:
            continue
        errors = [error for part in parts for error in part.errors]
        unknown = sorted({error.arm for error in errors} - set(settings.arms))
        if unknown:
            raise ArtifactError(
                f"the errors of experiment {name} are of arms that it does not name: "
                f"{', '.join(unknown)}; known: {', '.join(settings.arms)}. Delete its files and "
                "rerun"
            )
        operands: dict[tuple[str, str], LayerOperand] = {
            (one.layer, one.operand): one for part in parts for one in part.operands
        }
        scope = published_scope(inputs, name)
        batches = parts[0].num_batches
        found.append(PublishedErrors(name, settings, scope, batches, errors, operands))
    return found


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, and the medians of the halves below and above it; of at least one value."""
    ordered = sorted(values)
    half = (len(ordered) + 1) // 2
    return median(ordered), median(ordered[:half]), median(ordered[-half:])
