"""The study's training runs on torchtitan: its Llama, its trainer, our layers, text and records.

Optional: torchtitan is in no lock, and nothing but this package imports it. `train_function` sets
it up before any other module here is imported.
"""

import importlib
from collections.abc import Callable
from typing import Literal, cast

from blockwise.mxfp4.records import TrainingRun
from blockwise.mxfp4.titan import stand_ins


def trainer_name() -> str:
    """The name and version of torchtitan.

    Raises:
        ConfigError: it is not installed.
    """
    return f"{stand_ins.PACKAGE} {stand_ins.version()}"


def train_function(device: Literal["cpu", "cuda"]) -> Callable[..., TrainingRun]:
    """The function that trains one run on torchtitan.

    Raises:
        ConfigError: it is not installed.
    """
    stand_ins.prepare(device)
    return cast(Callable[..., TrainingRun], importlib.import_module(f"{__name__}.train").train)
