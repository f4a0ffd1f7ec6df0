"""torchtitan's trainer on a tiny Llama: our layers, text and records around its steps.

torchtitan is in no lock, so that these tests are skipped unless somebody installed it
(workflow/docs/training.md).
"""

import importlib.util

import pytest
import torch
from test_train import Words, spec

from blockwise.config.recipes import Recipe
from blockwise.errors import ConfigError
from blockwise.mxfp4.linear import MXFP4Linear
from blockwise.mxfp4.titan import stand_ins

TRAINING = {"num_steps": 10, "evaluate_every_steps": 4, "checkpoint_every_steps": 3}
WHOLE = Recipe(fprop={}, dgrad={}, wgrad={"dy": {"rounding": "sr"}, "rotation": {"kind": "dht"}})
needs_torchtitan = pytest.mark.skipif(
    importlib.util.find_spec("torchtitan") is None,
    reason="torchtitan is not installed: it is in no lock, workflow/docs/training.md says how",
)


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def titan():
    """The package's `train`, on a CPU."""
    stand_ins.prepare("cpu")
    from blockwise.mxfp4.titan import train  # noqa: PLC0415

    return train


def test_without_torchtitan_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"torchtitan.*docs/training\.md.*trainer: own"):
        stand_ins.prepare("cpu")


@needs_torchtitan
def test_a_killed_run_ends_with_the_losses_of_an_uninterrupted_one(titan, tmp_path):
    wanted = spec(WHOLE, training=TRAINING, trainer="torchtitan")
    whole = titan.train(wanted, Words(), tmp_path / "whole", is_compiled=False)
    steps = []

    def kill(num_tokens, loss):
        steps.append(loss)
        if len(steps) == 8:
            raise KilledError

    with pytest.raises(KilledError):
        titan.train(wanted, Words(), tmp_path / "killed", is_compiled=False, report=kill)
    resumed = titan.train(wanted, Words(), tmp_path / "killed", is_compiled=False)
    assert (whole.num_resumes, resumed.num_resumes) == (0, 1)
    assert whole.num_converted_layers == 2 * 5  # query, key and value are one
    assert [one.step for one in whole.evaluations] == [0, 4, 8, 10]
    assert whole.train_losses[-1] < whole.train_losses[0] - 0.5
    assert resumed.train_losses == whole.train_losses
    assert resumed.evaluations == whole.evaluations
    assert all(one.quantized_loss != one.unquantized_loss for one in whole.evaluations)


@needs_torchtitan
def test_the_converter_names_what_it_cannot_take(titan):
    from blockwise.mxfp4.titan.layer import MXFP4LinearConverter  # noqa: PLC0415
    from blockwise.mxfp4.titan.settings import llama_config  # noqa: PLC0415

    def converted(**changes):
        values = {
            "recipe": WHOLE,
            "include": ["layers.*"],
            "backend": "emulated",
            "device": "cpu",
            "is_compiled": False,
            **changes,
        }
        converter = MXFP4LinearConverter.Config(**values).build()
        return converter.convert(llama_config(spec().model, 256))

    with torch.device("meta"):
        model = converted().build()
    names = [name for name, one in model.named_modules() if isinstance(one, MXFP4Linear)]
    assert len(names) == 10
    assert all(name.startswith("layers.") for name in names)
    with pytest.raises(ConfigError, match=r"no linear layer.*\['blocks"):
        converted(include=["blocks.*"])
    with pytest.raises(ConfigError, match=r"'cpu'.*mxfp4\.backend: emulated"):
        converted(backend="native")
