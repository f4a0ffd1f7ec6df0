"""`mxfp4_layer_depths.csv`: errors of each GEMM on a published model, decoder layer by layer.

Of the arms that the experiment compares with one another (`ratios`).
"""

import re
from collections.abc import Callable
from typing import Any

import pandas as pd

from blockwise.tables.columns import Column, count, frame
from blockwise.tables.inputs import TableInputs
from blockwise.tables.mxfp4.parts import layer_statistics
from blockwise.tables.mxfp4.parts.published import (
    GEMM,
    PUBLISHED_SCOPE,
    PublishedErrors,
    published_errors,
)
from blockwise.tables.mxfp4.parts.training import ARM

DEPTH = re.compile(r"\.(\d+)\.")
COLUMNS: tuple[Column, ...] = (
    *PUBLISHED_SCOPE,
    count("depth", "Number of the decoder layer, from 0.", unit=""),
    GEMM,
    ARM,
    *layer_statistics.COLUMNS,
)


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row a decoder layer, GEMM and arm.

    Raises:
        ArtifactError: an experiment's errors are of arms that it does not name.
    """
    return frame([row for found in published_errors(inputs) for row in _rows(found)], COLUMNS)


def depth_of(layer: str) -> int | None:
    """The number in a layer's name, e.g. 12 of `model.layers.12.mlp.up_proj`; None without one."""
    found = DEPTH.search(layer)
    return int(found[1]) if found else None


def _rows(found: PublishedErrors) -> list[dict[str, Any]]:
    arms = list(dict.fromkeys(arm for pair in found.settings.ratios for arm in pair))
    numbers = {depth_of(layer) for layer in found.layers()}
    return [
        {"depth": depth, **row}
        for depth in sorted(number for number in numbers if number is not None)
        for row in layer_statistics.rows_of(found, arms, _is_at(depth))
    ]


def _is_at(depth: int) -> Callable[[str], bool]:
    return lambda layer: depth_of(layer) == depth
