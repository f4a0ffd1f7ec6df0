"""`mxfp4_layer_medians.csv`: errors of each GEMM on a published model, over its linear layers."""

import pandas as pd

from blockwise.tables.columns import Column, frame
from blockwise.tables.inputs import TableInputs
from blockwise.tables.mxfp4.parts import layer_statistics
from blockwise.tables.mxfp4.parts.published import GEMM, PUBLISHED_SCOPE, published_errors
from blockwise.tables.mxfp4.parts.training import ARM

COLUMNS: tuple[Column, ...] = (*PUBLISHED_SCOPE, GEMM, ARM, *layer_statistics.COLUMNS)


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row a GEMM and arm.

    Raises:
        ArtifactError: an experiment's errors are of arms that it does not name.
    """
    return frame(
        [
            row
            for found in published_errors(inputs)
            for row in layer_statistics.rows_of(found, found.settings.arms, lambda layer: True)
        ],
        COLUMNS,
    )
