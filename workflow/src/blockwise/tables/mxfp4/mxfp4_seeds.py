"""`mxfp4_seeds.csv`: one row a seed of an arm beside a baseline; what every mean is made of.

Losses are of the last evaluation, on more text than the curve where the experiment asks for it.
The way to the target is that of `mxfp4_ladder`.
"""

from typing import Any

import pandas as pd

from blockwise.config.mxfp4 import LadderExperiment
from blockwise.config.mxfp4_studies import Study
from blockwise.tables.columns import Column, ColumnKind, flag, frame, number, text
from blockwise.tables.inputs import TableInputs
from blockwise.tables.mxfp4.parts.crossing import crossings_of
from blockwise.tables.mxfp4.parts.training import (
    ARM,
    SCOPE,
    SEED,
    TrainedExperiment,
    final_averaged_loss,
    final_quantized_loss,
    final_unquantized_loss,
    trained_experiments,
)

FINALS = {
    "final_quantized_loss_nats": ("as the arm computes it", final_quantized_loss),
    "final_unquantized_loss_nats": ("the weights multiplied in float32", final_unquantized_loss),
    "final_averaged_loss_nats": ("of the averaged weights", final_averaged_loss),
}

COLUMNS: tuple[Column, ...] = (
    *SCOPE,
    text("baseline", "Arm whose loss is the target."),
    ARM,
    SEED,
    text("status", "finished or diverged.", ColumnKind.SAMPLED),
    number("target_loss_nats", "The target; empty: there is none.", ColumnKind.SAMPLED, "nats"),
    number(
        "baseline_to_target_tokens",
        "Tokens until the baseline first has it, interpolated.",
        ColumnKind.SAMPLED,
        "tokens",
    ),
    number(
        "to_target_tokens",
        "Tokens until the arm first has it, interpolated; empty: not within the horizon.",
        ColumnKind.SAMPLED,
        "tokens",
    ),
    number(
        "overhead_frac",
        "Tokens of the arm over those of the baseline, less 1; with the horizon where censored.",
        ColumnKind.SAMPLED,
        "1",
    ),
    flag("is_censored", "Whether the arm does not get there.", ColumnKind.SAMPLED),
    *(
        number(
            name,
            f"Last validation loss a token, {words}; empty for a diverged run, and where there is "
            "none.",
            ColumnKind.SAMPLED,
            "nats",
        )
        for name, (words, _) in FINALS.items()
    ),
    text("run_key", "Content key of the run."),
)


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row a seed of an arm and baseline, in the order of all tables."""
    rows: list[dict[str, Any]] = []
    for experiment in trained_experiments(inputs, Study.LADDER):
        for baseline, arm in experiment.pairs():
            rows += _rows(experiment, baseline, arm)
    return frame(rows, COLUMNS)


def _rows(experiment: TrainedExperiment, baseline: str, arm: str) -> list[dict[str, Any]]:
    assert isinstance(experiment.settings, LadderExperiment)  # the study says so
    own = experiment.arms[arm]
    crossings = crossings_of(own, experiment.arms[baseline], experiment.settings)
    return [
        {
            "experiment": experiment.name,
            "caption": experiment.caption,
            "num_parameters": experiment.num_parameters(),
            "baseline": baseline,
            "arm": arm,
            "seed": seed,
            "status": own[seed].status,
            "target_loss_nats": crossing and crossing.target_loss,
            "baseline_to_target_tokens": crossing and crossing.baseline_tokens,
            "to_target_tokens": crossing and crossing.own_tokens,
            "overhead_frac": crossing and crossing.overhead,
            "is_censored": crossing and crossing.own_tokens is None,
            **{
                name: loss_of(own[seed]) if own[seed].status == "finished" else None
                for name, (_, loss_of) in FINALS.items()
            },
            "run_key": own[seed].key,
        }
        for seed, crossing in crossings.items()
    ]
