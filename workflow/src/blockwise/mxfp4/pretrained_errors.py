"""Errors of every arm on the tensors of a published model: same x, w and dy for all of them.

    python -m blockwise.mxfp4.pretrained_errors --config ... --experiment ... --part 0 ...

Each batch goes through one forward and backward pass in float32, and each linear layer's operands
through every arm. A part takes its share of the layers: what is kept of a batch is a sum of dW for
each arm and layer, which for all layers of a real model is more than a small machine has.
"""

import argparse
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import torch

from blockwise.artifacts import write_model
from blockwise.config.mxfp4 import MXFP4
from blockwise.config.pretrained import LayerErrorsExperiment
from blockwise.errors import ConfigError, run_command
from blockwise.mxfp4.layer_errors import NUM_OPERAND_BATCHES, StepErrors
from blockwise.mxfp4.layer_operands import visit_operands
from blockwise.mxfp4.noise import draw_key
from blockwise.mxfp4.origin import origin
from blockwise.mxfp4.pretrained import PublishedModel, load
from blockwise.mxfp4.records import Diagnostics
from blockwise.mxfp4.selection import experiment_of, study_of
from blockwise.progress import WorkProgress


def layers_of_part(layers: Sequence[str], part: int, num_parts: int) -> list[str]:
    """The share of a part: neighbours, and as many as in the others or one more.

    Raises:
        ConfigError: there are more parts than layers.
    """
    if num_parts > len(layers):
        raise ConfigError(
            f"num_parts is {num_parts} and there are {len(layers)} layers to measure; lower it"
        )
    return list(layers[len(layers) * part // num_parts : len(layers) * (part + 1) // num_parts])


def measured_layers(published: PublishedModel, patterns: Sequence[str]) -> list[str]:
    """Layers that an experiment measures, in the model's order.

    Raises:
        ConfigError: none of the model's matches.
    """
    layers = [name for name in published.layers if any(fnmatchcase(name, one) for one in patterns)]
    if not layers:
        raise ConfigError(
            f"no layer matches {list(patterns)}; the model has {published.layers[0]} to "
            f"{published.layers[-1]}"
        )
    return layers


def measure_part(study: MXFP4, name: str, published: PublishedModel, part: int) -> Diagnostics:
    """Measure one part of an experiment.

    Random numbers are drawn for all layers of the model, so that they do not depend on parts.

    Raises:
        ConfigError: no such experiment or layer, or a loss that is not finite.
    """
    begun = origin(study.device)
    assert study.pretrained is not None
    experiment = experiment_of(study, name, LayerErrorsExperiment)
    layers = layers_of_part(
        measured_layers(published, experiment.layers), part, experiment.num_parts
    )
    arms = {arm: study.arms[arm] for arm in experiment.arms}
    found = StepErrors(arms, is_compiled=study.compiled)
    generator = torch.Generator().manual_seed(experiment.seed)
    with WorkProgress(f"{name}, part {part}", experiment.num_batches, unit="batches") as progress:
        for index in range(experiment.num_batches):
            keys = {layer: draw_key(generator).to(study.device) for layer in published.layers}
            found.begin_batch(keys, with_operands=index < NUM_OPERAND_BATCHES)
            tokens = published.corpus.train_batch(
                index,
                experiment.seed,
                experiment.batch_sequences,
                study.pretrained.sequence_tokens,
            ).to(study.device)
            forward = partial(published.loss, tokens)
            if not visit_operands(published.model, forward, layers, found.add):
                raise ConfigError(
                    f"the loss of batch {index} is not finite, so the model is not one to measure "
                    "on; name another in mxfp4.pretrained"
                )
            progress.advance(tokens.numel(), pieces=1)
    return Diagnostics(
        experiment=name,
        num_batches=experiment.num_batches,
        errors=found.rows(name, 0, layers),
        operands=found.operand_rows(name, 0, layers),
        origin=begun,
    )


def main() -> None:
    """Command line: one part of one experiment."""
    parser = argparse.ArgumentParser(
        prog="python -m blockwise.mxfp4.pretrained_errors", description=__doc__
    )
    parser.add_argument("--config", type=Path, required=True, help="resolved profile")
    parser.add_argument("--experiment", required=True)
    parser.add_argument("--part", type=int, required=True, help="counted from 0")
    parser.add_argument("--pretrained", type=Path, required=True, help="folder of the model")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the same sums on every machine
    study = study_of(arguments.config)
    published = load(study, arguments.pretrained)
    measured = measure_part(study, arguments.experiment, published, arguments.part)
    write_model(arguments.output, measured)


if __name__ == "__main__":
    run_command(main)
