"""What the experiments of the MXFP4 study measure."""

from enum import StrEnum


class Study(StrEnum):
    """What an experiment measures; also the name of its table and figure."""

    LADDER = "mxfp4_ladder"
    INTERVENTIONS = "mxfp4_interventions"
    DIAGNOSTICS = "mxfp4_diagnostics"
    SCALE_RULES = "mxfp4_scale_rules"
    LAYER_ERRORS = "mxfp4_layer_errors"
    DESCENT = "mxfp4_descent"
    OUTLIERS = "mxfp4_outliers"
    SPEED = "mxfp4_speed"
