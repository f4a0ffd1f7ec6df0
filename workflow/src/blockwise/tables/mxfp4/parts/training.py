"""From training batches to runs, and the runs of an experiment side by side.

A batch names the finished runs of one job; each lies sealed in the cell store under its key.
All runs of an experiment must agree in everything but recipe and seed, because arms are paired
by seed: same start, same data, same schedule. Experiments and arms come in the order of the
configuration, baselines first, in every table.

Losses and all that follows from them are `sampled`, not `exact`: on the same processor a rerun
repeats them, on another one the last bits of a sum differ, and training amplifies them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockwise.artifacts import read_model, read_sealed
from blockwise.config.mxfp4 import MXFP4, TrainingExperiment
from blockwise.config.mxfp4_studies import Study
from blockwise.errors import ArtifactError
from blockwise.mxfp4.records import Evaluation, TrainingBatch, TrainingRun, run_path
from blockwise.tables.columns import Column, ColumnKind, count, number, text
from blockwise.tables.inputs import LoadedRun, TableInputs

EXPERIMENT = text("experiment", "Experiment of the configuration.")
CAPTION = text("caption", "Scale of the study: what every figure of it must say.")
NUM_PARAMETERS = number(
    "num_parameters",
    "Parameters of the trained model; empty: no record tells.",
    ColumnKind.EXACT,
    "parameters",
)
ARM = text("arm", "Arm: quantized GEMMs, and where each remedy acts.")
SEED = count("seed", "Seed of the weights, the data order and the noise.", unit="")
SCOPE: tuple[Column, ...] = (EXPERIMENT, CAPTION, NUM_PARAMETERS)
"""Whose runs a row sums up."""
LABELS: tuple[Column, ...] = (
    *SCOPE,
    text("baseline", "Arm that this one is paired with, seed by seed."),
    ARM,
    count("num_seeds", "Seeds with a run of both arms.", ColumnKind.HOST),
    count(
        "num_diverged",
        "Seeds in which the arm diverged: a loss that is not finite, or a smoothed one above the "
        "first. They take no part in losses and their differences.",
        ColumnKind.SAMPLED,
    ),
    count(
        "first_divergence_step",
        "Steps done when the first of them diverged.",
        ColumnKind.SAMPLED,
        unit="",
    ),
)
"""Which pair of arms a row shows."""

Runs = Mapping[int, TrainingRun]
"""Runs of one arm by seed, ascending."""


@dataclass(frozen=True)
class TrainedExperiment:
    """The runs of one experiment."""

    name: str
    settings: TrainingExperiment
    caption: str
    arms: Mapping[str, Runs]  # those with a run, in the order of the configuration

    def pairs(self) -> list[tuple[str, str]]:
        """Every baseline with every arm, itself included; both have runs."""
        baselines = [arm for arm in self.settings.baselines if arm in self.arms]
        return [(baseline, arm) for baseline in baselines for arm in self.arms]

    def num_parameters(self) -> int:
        """Parameters of the model, the same in all runs."""
        return next(run for runs in self.arms.values() for run in runs.values()).num_parameters


def load_runs(study: MXFP4, batch_paths: Iterable[Path], store_folder: Path) -> list[LoadedRun]:
    """Load every run that a batch names, in the order of all tables.

    Raises:
        ArtifactError: a file is missing or damaged, a run is not what the configuration asks
            for, an experiment has a run twice or mixes settings.
    """
    found: dict[tuple[str, str, int], TrainingRun] = {}
    for batch_path in batch_paths:
        batch = read_model(batch_path, TrainingBatch)
        settings = _settings(study, batch, batch_path)
        for arm, seed, key in _selected(batch):
            run = read_sealed(run_path(store_folder, key), TrainingRun)
            if not (
                arm in settings.all_arms()
                and run.spec.recipe == study.arms[arm]
                and run.spec.training == settings.training
                and run.spec.seed == seed
            ):
                raise ArtifactError(
                    f"{batch_path}: the run of {arm}, seed {seed}, is of the recipe "
                    f"{run.spec.recipe.name}, seed {run.spec.seed}, or of another schedule: not "
                    f"what experiment {batch.experiment} asks for. Delete the batch file and rerun"
                )
            if found.setdefault((batch.experiment, arm, seed), run) is not run:
                raise ArtifactError(
                    f"{batch_path}: experiment {batch.experiment} has a second run of {arm}, seed "
                    f"{seed}; a run counts once. Delete the batch file and rerun"
                )
    _check_settings_agree(found)
    return [
        LoadedRun(name, arm, found[name, arm, seed])
        for name, settings in study.experiments.items()
        if isinstance(settings, TrainingExperiment)
        for arm in settings.all_arms()
        for seed in sorted(seed for one, other, seed in found if (one, other) == (name, arm))
    ]


def damage_of_training(batch_path: Path, store_folder: Path) -> list[str]:
    """What of a batch is missing or damaged: the batch itself, or runs that it names."""
    try:
        batch = read_model(batch_path, TrainingBatch)
    except ArtifactError as error:
        return [str(error)]
    problems = []
    for key in sorted({key for _, _, key in _selected(batch)}):
        try:
            read_sealed(run_path(store_folder, key), TrainingRun)
        except ArtifactError as error:
            problems.append(str(error))
    return problems


def trained_experiments(inputs: TableInputs, study: Study) -> list[TrainedExperiment]:
    """The experiments of a study that have runs."""
    if inputs.mxfp4 is None:
        return []
    arms: dict[str, dict[str, dict[int, TrainingRun]]] = {}
    for one in inputs.runs:
        by_seed = arms.setdefault(one.experiment, {}).setdefault(one.arm, {})
        by_seed[one.run.spec.seed] = one.run
    return [
        TrainedExperiment(name, settings, inputs.mxfp4.caption, arms[name])
        for name, settings in inputs.mxfp4.experiments.items()
        if name in arms and isinstance(settings, TrainingExperiment) and settings.study == study
    ]


def known_parameters(inputs: TableInputs) -> int | None:
    """Parameters of the study's model where a run or a timing tells; one study has one model."""
    known = {one.run.num_parameters for one in inputs.runs}
    known |= {one.num_parameters for one in inputs.speeds}
    return known.pop() if len(known) == 1 else None


def label_values(experiment: TrainedExperiment, baseline: str, arm: str) -> dict[str, Any]:
    """Values of `LABELS`."""
    shared = experiment.arms[baseline].keys() & experiment.arms[arm].keys()
    diverged = [
        run.diverged_at_step or 0
        for seed, run in experiment.arms[arm].items()
        if seed in shared and run.status == "diverged"
    ]
    return {
        "experiment": experiment.name,
        "caption": experiment.caption,
        "num_parameters": experiment.num_parameters(),
        "baseline": baseline,
        "arm": arm,
        "num_seeds": len(shared),
        "num_diverged": len(diverged),
        "first_divergence_step": min(diverged, default=None),
    }


def finished(runs: Runs, of: Callable[[TrainingRun], float | None]) -> dict[int, float]:
    """A value of the finished runs by seed; one that has none takes no part."""
    values = {seed: of(run) for seed, run in runs.items() if run.status == "finished"}
    return {seed: value for seed, value in values.items() if value is not None}


def final_quantized_loss(run: TrainingRun) -> float | None:
    """Validation loss after the last step, as the arm computes it."""
    return _last(run).quantized_loss


def final_unquantized_loss(run: TrainingRun) -> float | None:
    """Validation loss after the last step, the weights multiplied in float32."""
    return _last(run).unquantized_loss


def final_averaged_loss(run: TrainingRun) -> float | None:
    """Validation loss after the last step, of the averaged weights as the arm computes it."""
    return _last(run).averaged_loss


def _last(run: TrainingRun) -> Evaluation:
    """The evaluation after the last step, on more text where there is one."""
    return run.final_evaluation or run.evaluations[-1]


FINAL_LOSSES = {
    "quantized_loss": ("Last validation loss, as the arm computes it", final_quantized_loss),
    "unquantized_loss": (
        "Last validation loss, the weights multiplied in float32",
        final_unquantized_loss,
    ),
}
"""Meaning and source of each loss at the end of a run."""


def _selected(batch: TrainingBatch) -> list[tuple[str, int, str]]:
    """Arm, seed and key of each run."""
    return [(arm, seed, key) for arm, keys in batch.runs.items() for seed, key in keys.items()]


def _settings(study: MXFP4, batch: TrainingBatch, path: Path) -> TrainingExperiment:
    settings = study.experiments.get(batch.experiment)
    if not isinstance(settings, TrainingExperiment):
        raise ArtifactError(
            f"{path} is of the experiment {batch.experiment!r}, which the configuration does not "
            "train. Delete the batch file, or name only batches of this profile"
        )
    return settings


def _check_settings_agree(found: Mapping[tuple[str, str, int], TrainingRun]) -> None:
    """Arms of an experiment may differ in recipe and seed alone."""
    first: dict[str, tuple[str, dict[str, Any]]] = {}
    for (experiment, _, _), run in found.items():
        shared = run.spec.model_dump(exclude={"recipe", "seed"})
        key, expected = first.setdefault(experiment, (run.key, shared))
        differing = sorted(name for name in shared if shared[name] != expected[name])
        if differing:
            raise ArtifactError(
                f"experiment {experiment} mixes runs of different {', '.join(differing)}: {key} "
                f"and {run.key}. Rerun its batches so that they select the runs of one "
                "configuration"
            )
