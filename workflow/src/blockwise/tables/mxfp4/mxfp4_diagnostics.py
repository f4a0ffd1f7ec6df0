"""`mxfp4_diagnostics.csv`: what FP4 does to each GEMM, and what a remedy changes about it.

On one trajectory that all arms share: how large the error of a product is, how much of it is the
same in every batch and so never averages out, which values are lost to underflow or saturation,
and how the gradient of the weights compares with its noise.
"""

import pandas as pd

from blockwise.config.mxfp4_studies import Study
from blockwise.tables.inputs import TableInputs
from blockwise.tables.mxfp4.parts import gemm_errors

COLUMNS = gemm_errors.COLUMNS


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row a step, arm and GEMM of an experiment.

    Raises:
        ArtifactError: an experiment's errors are of arms that it does not name.
    """
    return gemm_errors.build_errors(inputs, Study.DIAGNOSTICS)
