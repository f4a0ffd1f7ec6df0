"""The whole configuration of one run, and the checks that span its parts."""

from collections.abc import Mapping, Sequence, Set
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from blockwise.config.backbones import Backbone, Weights
from blockwise.config.base import ConfigModel, Name
from blockwise.config.datasets import Dataset
from blockwise.config.embedder import Embedder, TfidfEmbedder
from blockwise.config.experiments import Experiment, LoadExperiment
from blockwise.config.judge import Judge
from blockwise.config.mxfp4 import MXFP4
from blockwise.config.pocket import PocketRecipe
from blockwise.config.split import BatchSplit, Part, most_server_starts

SEPARATOR = "\n"  # between the problems of one error
OUT_OF_DOMAIN = "out of domain: it was taught the synthetic language only"
RESERVED_PROFILES = frozenset({"reference", "bench", "chaos"})


class Profile(ConfigModel):
    """A validated configuration: names results/<profile> and figures/<profile>."""

    profile: Name
    backbones: Annotated[dict[Name, Backbone], Field(min_length=1)]
    datasets: Annotated[dict[Name, Dataset], Field(min_length=1)]
    experiments: Annotated[dict[Name, Experiment], Field(min_length=1)]
    embedder: Embedder = TfidfEmbedder(kind="tfidf")
    mxfp4: MXFP4 | None = Field(None, description="Optional: the study of MXFP4 training.")
    pocket: dict[Name, PocketRecipe] = Field(
        default_factory=dict, description="Recipes of the pocket backbones, by name."
    )
    judge: Judge | None = Field(None, description="Optional: also judges every recall answer.")
    require_pinned: bool = Field(
        False, description="Refuse to run (not to dry-run) while anything is `unpinned`."
    )

    @field_validator("profile")
    @classmethod
    def _profile_is_not_reserved(cls, value: str) -> str:
        if value in RESERVED_PROFILES:
            raise ValueError(f"{value!r} is reserved for {value} artifacts; choose another name")
        return value

    @model_validator(mode="after")
    def _parts_fit_together(self) -> "Profile":
        problems = cross_problems(self.backbones, self.datasets, self.experiments)
        if problems:
            raise ValueError(SEPARATOR.join(problems))
        return self

    def caption_of(self, backbone: str, dataset: str) -> str:
        """The warning that every figure of this backbone on this dataset shows."""
        entry, source = self.backbones[backbone], self.datasets[dataset].source
        if entry.weights is Weights.POCKET and source.kind != "synthetic":
            return "; ".join(filter(None, [entry.caption, OUT_OF_DOMAIN]))
        return entry.caption

    def experiments_of(self, backbone: str, dataset: str) -> dict[str, Experiment]:
        """The experiments that play this dataset on this backbone."""
        played = self.backbones[backbone].datasets
        if played is not None and dataset not in played:
            return {}
        return {
            name: experiment
            for name, experiment in self.experiments.items()
            if (experiment.backbones is None or backbone in experiment.backbones)
            and (experiment.datasets is None or dataset in experiment.datasets)
        }

    def is_split(self, backbone: str) -> bool:
        """Whether several jobs play a batch of this backbone: by `split`, or by server start."""
        return self.backbones[backbone].split is not None or any(
            most_server_starts(self.experiments_of(backbone, dataset).values()) > 1
            for dataset in self.datasets
        )

    def parts_of(self, backbone: str, dataset: str) -> list[Part]:
        """The jobs of a batch of a backbone that is split; none where a single job plays it."""
        if not self.is_split(backbone):
            return []
        split = self.backbones[backbone].split or BatchSplit()
        return split.parts(self.experiments_of(backbone, dataset).values())


def cross_problems(
    backbones: Mapping[str, Backbone],
    datasets: Mapping[str, Dataset],
    experiments: Mapping[str, Experiment],
    listed: Mapping[str, Set[str]] | None = None,
) -> list[str]:
    """What is wrong between sound entries: unknown references, windows that are too small.

    Args:
        backbones: entries that are sound in themselves.
        datasets: likewise.
        experiments: likewise.
        listed: names that stand in each collection, sound or not; default: the sound ones.
    """
    names = listed or {"backbones": set(backbones), "datasets": set(datasets)}
    problems = []
    for name, backbone in backbones.items():
        problems += _unknown(f"backbones.{name}.datasets", backbone.datasets, names, "datasets")
    for name, experiment in experiments.items():
        for key in names:
            wanted = getattr(experiment, key)
            problems += _unknown(f"experiments.{name}.{key}", wanted, names, key)
        for backbone_name in experiment.backbones or backbones:
            if backbone_name in backbones and _meet(experiment, backbones[backbone_name]):
                for check in (_window_problem, _start_problem, _priority_problem):
                    problem = check(name, experiment, backbone_name, backbones[backbone_name])
                    problems += [problem] if problem else []
    return problems


def _unknown(
    list_name: str, wanted: Sequence[str] | None, names: Mapping[str, Set[str]], key: str
) -> list[str]:
    return [
        f"{list_name} names {name!r}, which is not in {key}: {', '.join(sorted(names[key]))}"
        for name in wanted or []
        if name not in names[key]
    ]


def _meet(experiment: Experiment, backbone: Backbone) -> bool:
    """Whether some dataset is played by both."""
    if experiment.datasets is None or backbone.datasets is None:
        return True
    return not set(experiment.datasets).isdisjoint(backbone.datasets)


def _start_problem(
    name: str, experiment: Experiment, backbone_name: str, backbone: Backbone
) -> str | None:
    """Nobody here starts an external server: all its times would be of one start."""
    if experiment.num_server_starts == 1 or backbone.engine.kind != "external":
        return None
    return (
        f"experiments.{name}: num_server_starts is {experiment.num_server_starts}, and the server "
        f"of {backbone_name} is external, so no job starts it anew; set 1, or name only backbones "
        "whose engine is vllm"
    )


def _priority_problem(
    name: str, experiment: Experiment, backbone_name: str, backbone: Backbone
) -> str | None:
    """An engine that schedules in the order of arrival takes a priority and ignores it."""
    if not isinstance(experiment, LoadExperiment) or not experiment.worker_priorities:
        return None
    engine = backbone.engine
    if engine.kind != "vllm" or engine.arguments.get("scheduling-policy") == "priority":
        return None
    return (
        f"experiments.{name}: worker_priorities {experiment.worker_priorities} need an engine that "
        f"schedules by priority; set scheduling-policy: priority in backbones.{backbone_name}."
        "engine.arguments, or name another backbone"
    )


def _window_problem(
    name: str, experiment: Experiment, backbone_name: str, backbone: Backbone
) -> str | None:
    history_tokens = max(experiment.history_limits_tokens)
    output_tokens = experiment.max_request_tokens()
    if history_tokens + output_tokens <= backbone.context_window_tokens:
        return None
    return (
        f"experiments.{name}: a history of {history_tokens} tokens plus an output of "
        f"{output_tokens} exceed the window of {backbone_name} "
        f"({backbone.context_window_tokens}); lower tau_tokens (or history_tokens) or the volume, "
        "or name only backbones with a larger window"
    )
