"""Who trains: a module for each trainer, found by its kind and imported where it is asked for."""

import importlib
from collections.abc import Callable
from typing import Literal, Protocol, cast

from blockwise.config.mxfp4 import TrainerKind
from blockwise.mxfp4.records import TrainingRun

MODULES = {
    TrainerKind.OWN: "blockwise.mxfp4.train",
    TrainerKind.TORCHTITAN: "blockwise.mxfp4.titan",
}
STEPS = {
    TrainerKind.OWN: "blockwise.mxfp4.train",
    TrainerKind.TORCHTITAN: "blockwise.mxfp4.titan.train",
}
"""Module whose code takes the steps: its digest is part of a run's key."""


class Trainer(Protocol):
    """What a trainer's module offers."""

    def trainer_name(self) -> str:
        """Its name and version, for records.

        Raises:
            ConfigError: it is not installed here.
        """

    def train_function(self, device: Literal["cpu", "cuda"]) -> Callable[..., TrainingRun]:
        """The function that trains one run, with the arguments of `blockwise.mxfp4.train.train`.

        Raises:
            ConfigError: it is not installed here.
        """


def load_trainer(kind: TrainerKind) -> Trainer:
    """The trainer of a kind."""
    return cast(Trainer, importlib.import_module(MODULES[kind]))
