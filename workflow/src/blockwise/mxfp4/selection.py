"""Which study and experiment a job works on: names from a command line, checked."""

from pathlib import Path
from typing import TypeVar

from blockwise.artifacts import read_model
from blockwise.config.base import ConfigModel
from blockwise.config.mxfp4 import MXFP4
from blockwise.config.profile import Profile
from blockwise.errors import ConfigError

ExperimentT = TypeVar("ExperimentT", bound=ConfigModel)


def study_of(config: Path) -> MXFP4:
    """The training study of a resolved profile.

    Raises:
        ConfigError: the profile has none.
    """
    study = read_model(config, Profile).mxfp4
    if study is None:
        raise ConfigError(f"{config} has no section mxfp4, which this job needs; add it")
    return study


def experiment_of(study: MXFP4, name: str, kind: type[ExperimentT]) -> ExperimentT:
    """An experiment of a study by its name.

    Raises:
        ConfigError: there is none of this name, or it is of another kind.
    """
    experiment = study.experiments.get(name)
    if isinstance(experiment, kind):
        return experiment
    fitting = [key for key, value in study.experiments.items() if isinstance(value, kind)]
    wrong = "is not in mxfp4.experiments" if experiment is None else f"is a {experiment.study}"
    raise ConfigError(
        f"the experiment {name!r} {wrong}; this job takes one of: {', '.join(fitting) or 'none'}"
    )
