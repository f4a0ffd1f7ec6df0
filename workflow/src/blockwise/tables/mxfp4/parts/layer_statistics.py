"""Statistics of errors on a published model over some of its linear layers.

Layers of one model are no independent evidence: rows show medians, quartiles and ranges, and no
interval. Wgrad stands first, because no weight enters it: the weights of a model in a 4-bit file
are already near a grid of few values, which Fprop and Dgrad see.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from blockwise.mxfp4.records import ErrorStatistics
from blockwise.tables.columns import Column, ColumnKind, count, number
from blockwise.tables.mxfp4.parts.published import GEMMS, PublishedErrors, quartiles

MEASURES = {
    "relative_error": "Size of the product's error over the product's",
    "systematic_error": "Size of the error's mean over batches (in Fprop and Dgrad over tokens "
    "too), over the size of the product's mean",
    "cosine": "Cosine of the product and the float32 product",
    "shrinkage": "1 less the product's projection on the float32 product; above 0 it shrinks",
}
STATISTICS = {
    "median": "median over layers",
    "q1": "lower quartile",
    "q3": "upper quartile",
    "min": "smallest",
    "max": "largest",
}
COLUMNS: tuple[Column, ...] = (
    count("num_layers", "Linear layers behind the row."),
    count("num_batches", "Batches behind the error of one layer."),
    count(
        "num_worst",
        "Linear layers in which this GEMM has the largest error of those that the arm quantizes; "
        "empty: it quantizes one.",
        ColumnKind.SAMPLED,
    ),
    *(
        number(f"{name}_{statistic}", f"{meaning}: {words}.", ColumnKind.SAMPLED, "1")
        for name, meaning in MEASURES.items()
        for statistic, words in STATISTICS.items()
    ),
)


def rows_of(
    found: PublishedErrors, arms: Sequence[str], is_counted: Callable[[str], bool]
) -> list[dict[str, Any]]:
    """Values of scope, GEMM, arm and `COLUMNS`, a row a GEMM and arm that was measured.

    Args:
        found: all errors.
        arms: in the order of rows.
        is_counted: whether a layer, by its name, is behind the rows.
    """
    rows = []
    for gemm in GEMMS:
        for arm in arms:
            chosen = {
                name: [error for layer, error in found.of(name, arm).items() if is_counted(layer)]
                for name in GEMMS
            }
            chosen = {name: errors for name, errors in chosen.items() if errors}
            if gemm in chosen:
                labels = {"gemm": gemm, "arm": arm, "num_batches": found.num_batches}
                rows.append({**found.scope, **labels, **_statistics(chosen, gemm)})
    return rows


def _statistics(chosen: Mapping[str, Sequence[ErrorStatistics]], gemm: str) -> dict[str, Any]:
    """Statistics of one GEMM over some layers, beside the arm's other GEMMs."""
    own = chosen[gemm]
    largest = [
        max(layer, key=lambda error: error.relative_error).gemm
        for layer in zip(*chosen.values(), strict=True)
    ]
    values: dict[str, Any] = {
        "num_layers": len(own),
        "num_worst": sum(one == gemm for one in largest) if len(chosen) > 1 else None,
    }
    for name in MEASURES:
        numbers = [getattr(error, name) for error in own]
        statistics = (*quartiles(numbers), min(numbers), max(numbers))
        values |= {
            f"{name}_{statistic}": value
            for statistic, value in zip(STATISTICS, statistics, strict=True)
        }
    return values
