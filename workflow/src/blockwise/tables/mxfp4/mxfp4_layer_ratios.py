"""`mxfp4_layer_ratios.csv`: the error of one arm over that of another, layer by layer.

Beside each ratio stands the share of the mean of both operands along the dimension that the GEMM
sums over. A Hadamard matrix has a row of ones: without random signs it adds the values of a run,
and a mean becomes one large value. Where the two go together, that is the mechanism. What holds of
all layers (median, how many are above one, rank correlation) is repeated in each row.
"""

from statistics import median
from typing import Any

import pandas as pd
from scipy.stats import spearmanr  # type: ignore[import-untyped]  # scipy ships no types

from blockwise.tables.columns import Column, ColumnKind, count, frame, number, text
from blockwise.tables.inputs import TableInputs
from blockwise.tables.mxfp4.parts.published import (
    GEMM,
    GEMMS,
    PUBLISHED_SCOPE,
    SIDES,
    PublishedErrors,
    published_errors,
)
from blockwise.tables.mxfp4.parts.training import ARM

OPERANDS = ("left", "right")
COLUMNS: tuple[Column, ...] = (
    *PUBLISHED_SCOPE,
    GEMM,
    ARM,
    text("other_arm", "The arm whose error it is divided by."),
    text("layer", "Name of the linear layer in the model."),
    number("ratio", "Relative error of arm over that of other_arm.", ColumnKind.SAMPLED, "1"),
    *(text(f"{side}_operand", f"The {side} operand of the product.") for side in OPERANDS),
    *(
        number(
            f"{side}_mean_frac",
            f"Share of the squared values of the {side} operand that its mean along the summed "
            "dimension makes up.",
            ColumnKind.SAMPLED,
            "1",
        )
        for side in OPERANDS
    ),
    count("num_layers", "Layers with a ratio of this GEMM and pair."),
    count("num_above_one", "Layers whose ratio is above one.", ColumnKind.SAMPLED),
    number("median_ratio", "Median of the ratio over layers.", ColumnKind.SAMPLED, "1"),
    *(
        number(
            f"{side}_spearman",
            f"Rank correlation over layers of the ratio and {side}_mean_frac; empty below three "
            "layers and where one of them does not vary.",
            ColumnKind.SAMPLED,
            "1",
        )
        for side in OPERANDS
    ),
)
MIN_LAYERS = 3  # a rank correlation of two is 1 or -1


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row a GEMM, pair of arms and layer.

    Raises:
        ArtifactError: an experiment's errors are of arms that it does not name.
    """
    return frame(
        [
            row
            for found in published_errors(inputs)
            for gemm in GEMMS
            for pair in found.settings.ratios
            for row in _rows(found, gemm, pair)
        ],
        COLUMNS,
    )


def _rows(found: PublishedErrors, gemm: str, pair: tuple[str, str]) -> list[dict[str, Any]]:
    own, other = (found.of(gemm, arm) for arm in pair)
    layers = [layer for layer in own if layer in other and other[layer].relative_error > 0]
    if not layers:
        return []
    ratios = [own[layer].relative_error / other[layer].relative_error for layer in layers]
    fracs = [found.mean_fracs(gemm, layer) for layer in layers]
    shared = {
        **found.scope,
        "gemm": gemm,
        "arm": pair[0],
        "other_arm": pair[1],
        "num_layers": len(layers),
        "num_above_one": sum(ratio > 1 for ratio in ratios),
        "median_ratio": median(ratios),
        **{
            f"{side}_operand": operand
            for side, (operand, _) in zip(OPERANDS, SIDES[gemm], strict=True)
        },
        **{
            f"{side}_spearman": _spearman(ratios, [frac[index] for frac in fracs])
            for index, side in enumerate(OPERANDS)
        },
    }
    return [
        {**shared, "layer": layer, "ratio": ratio, "left_mean_frac": left, "right_mean_frac": right}
        for layer, ratio, (left, right) in zip(layers, ratios, fracs, strict=True)
    ]


def _spearman(one: list[float], other: list[float]) -> float | None:
    if len(one) < MIN_LAYERS or len(set(one)) == 1 or len(set(other)) == 1:
        return None
    return float(spearmanr(one, other).statistic)
