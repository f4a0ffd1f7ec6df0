"""`mxfp4_speed.csv`: what a training step of each arm costs, against each baseline.

Every arm takes one step in each round, in an order drawn for the round; a ratio is formed inside
a round, where the machine is the same for both. The median over rounds is what a reader wants;
the interval is of the geometric mean and holds for this process on this machine. Emulation on a
device without FP4 costs time by construction: the ratio is the price of the emulation.

An arm stands against each baseline and against its own other forms (another implementation of
the same recipe), each in every form that was timed. Compiled is compared with compiled; a row
that pairs unlike forms says so.
"""

from collections.abc import Iterator
from statistics import median
from typing import Any

import pandas as pd

from blockwise.config.mxfp4 import SpeedExperiment
from blockwise.errors import ArtifactError
from blockwise.mxfp4.records import Speed, StepTimes
from blockwise.statistics import paired_ratio
from blockwise.tables.columns import Column, ColumnKind, count, frame, number, seconds, text, tokens
from blockwise.tables.inputs import TableInputs
from blockwise.tables.mxfp4.parts.spread import Spread
from blockwise.tables.mxfp4.parts.training import ARM, SCOPE

ITSELF = "the baseline itself"
RATIO = Spread(
    "step_ratio",
    "",
    "1",
    "Step time over the baseline's, inside a round, geometric",
    over="rounds",
    kind=ColumnKind.TIMED,
)

COLUMNS: tuple[Column, ...] = (
    *SCOPE,
    ARM,
    text("form", "Whose implementation, and how it ran, e.g. `ours, compiled`."),
    text("baseline", "Arm of the step that this one is divided by."),
    text("baseline_form", "Its form."),
    text("note", "Why the ratio says less than others: unlike forms; empty: they are alike."),
    tokens("step_tokens", "Tokens of one step."),
    count("num_threads", "CPU threads."),
    number(
        "step_ratio_median",
        "Step time over the baseline's, inside a round: median over rounds.",
        ColumnKind.TIMED,
        "1",
    ),
    *RATIO.columns(),
    seconds("step_median_s", "Median wall time of a step; not to be compared between machines."),
    text("device", "cpu, or the accelerator's name.", ColumnKind.HOST),
    text("cpu", "Processor.", ColumnKind.HOST),
    text("host", "Machine.", ColumnKind.HOST),
    number("load_average_1min", "Load average at the start.", ColumnKind.HOST, "processes"),
    number("cpu_steal_frac", "CPU time stolen at the start.", ColumnKind.HOST, "1"),
)


def build(inputs: TableInputs) -> pd.DataFrame:
    """One row an arm and form against a baseline and form, in the order of the configuration.

    Raises:
        ArtifactError: a timing lacks a step in some round.
    """
    if inputs.mxfp4 is None:
        return frame([], COLUMNS)
    found = {one.experiment: one for one in inputs.speeds}
    rows = [
        _row(inputs.mxfp4.caption, found[name], own, baseline)
        for name, experiment in inputs.mxfp4.experiments.items()
        if isinstance(experiment, SpeedExperiment) and name in found
        for own, baseline in _pairs(experiment, found[name])
    ]
    return frame(rows, COLUMNS)


def _pairs(experiment: SpeedExperiment, found: Speed) -> Iterator[tuple[StepTimes, StepTimes]]:
    """Every timing with each it is compared with."""
    arms = dict.fromkeys([*experiment.baselines, *experiment.arms])
    timings = [one for arm in arms for one in found.times if one.arm == arm]
    for own in timings:
        _check_rounds(own, found)
        for other in timings:
            is_other_form = own.arm == other.arm and own.form != other.form
            if other.arm in experiment.baselines or is_other_form:
                yield own, other


def _check_rounds(timing: StepTimes, found: Speed) -> None:
    if len(timing.step_s) != len(found.order):
        raise ArtifactError(
            f"experiment {found.experiment}: {timing.arm} ({timing.form}) has "
            f"{len(timing.step_s)} steps in {len(found.order)} rounds; it must have one in each. "
            "Delete its file and rerun"
        )


def _row(caption: str, found: Speed, own: StepTimes, baseline: StepTimes) -> dict[str, Any]:
    ratios = [mine / other for mine, other in zip(own.step_s, baseline.step_s, strict=True)]
    return {
        "experiment": found.experiment,
        "caption": caption,
        "num_parameters": found.num_parameters,
        "arm": own.arm,
        "form": own.form,
        "baseline": baseline.arm,
        "baseline_form": baseline.form,
        "note": _note(own, baseline),
        "step_tokens": found.tokens_per_step,
        "num_threads": found.num_threads,
        "step_ratio_median": median(ratios),
        **RATIO.interval_values(paired_ratio(_by_round(own), _by_round(baseline))),
        "step_median_s": median(own.step_s),
        "device": found.origin.device,
        "cpu": found.origin.cpu,
        "host": found.origin.host,
        "load_average_1min": found.load_average,
        "cpu_steal_frac": found.cpu_steal_frac,
    }


def _by_round(timing: StepTimes) -> dict[str, float]:
    return {str(index): step_s for index, step_s in enumerate(timing.step_s)}


def _note(own: StepTimes, baseline: StepTimes) -> str | None:
    if own is baseline:
        return ITSELF
    mine, other = (one.form.rpartition(", ")[2] for one in (own, baseline))
    return None if mine == other else f"{mine} against {other}"
