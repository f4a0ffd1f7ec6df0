"""`mxfp4_scale_rules.csv`: errors of each GEMM by the rule that sets a group's scale.

The rules trade clipping (floor, even) against coarser steps (ceil, rceil), and stochastic
rounding is unbiased only where nothing clips: saturation and shrinkage stand beside the error.
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
    return gemm_errors.build_errors(inputs, Study.SCALE_RULES)
