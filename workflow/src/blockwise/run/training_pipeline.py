"""What the rules of the MXFP4 study ask: its jobs, their arguments, and when they run again.

A profile without the study has no jobs here; everything then is an empty list.
"""

import platform
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from blockwise.artifacts import digest, file_states
from blockwise.config.backbones import PathModel
from blockwise.config.corpora import Corpus
from blockwise.config.mxfp4 import MXFP4, TrainerKind, TrainingExperiment, named_arms
from blockwise.config.mxfp4_studies import Study
from blockwise.config.pretrained import (
    DescentExperiment,
    LayerErrorsExperiment,
    PretrainedExperiment,
)
from blockwise.errors import ConfigError
from blockwise.mxfp4.docstrings import licences
from blockwise.mxfp4.trainers import STEPS, load_trainer
from blockwise.provenance import code_digest
from blockwise.run.job_resources import pretrained_memory_mb, training_memory_mb

ALL = "all"  # the job that trains every seed
RECORDS_FOLDER = "results/reference"  # what is committed of results
LOWEST_PRIORITY = "19"
RENDEZVOUS_PORT = 29500  # torchrun's own; a job on several nodes has them to itself


PublishedT = TypeVar("PublishedT", bound=PretrainedExperiment)


class TrainingPipeline:
    """The jobs of the study of a profile, which may be None."""

    def __init__(self, study: MXFP4 | None) -> None:
        self._study = study

    @property
    def study(self) -> MXFP4:
        """The study; only jobs of it ask."""
        assert self._study is not None, "a profile without mxfp4 has no training job"
        return self._study

    def experiments(self, *studies: Study) -> list[str]:
        """Experiments that belong to one of some studies."""
        entries = self._study.experiments if self._study else {}
        return [name for name, experiment in entries.items() if experiment.study in studies]

    def measurements(self, folder: str, *studies: Study) -> list[str]:
        """Files of the experiments of some studies."""
        return [f"{folder}/{name}.json" for name in self.experiments(*studies)]

    def layer_errors(self, folder: str) -> list[str]:
        """Files of the errors on a published model, a part each."""
        return [
            f"{folder}/{name}/{part}.json"
            for name, experiment in self._on_published(LayerErrorsExperiment)
            for part in range(experiment.num_parts)
        ]

    def descents(self, folder: str) -> list[str]:
        """Files of the descents from a published model, a start each."""
        return [
            f"{folder}/{name}/{start}.json"
            for name, experiment in self._on_published(DescentExperiment)
            for start in experiment.starts
        ]

    def runs(self) -> list[tuple[str, str]]:
        """Every training job: its experiment, and `all`, `SEED` or `SEED-NUMBER` of an arm."""
        return [
            (name, run)
            for name in self.experiments(Study.LADDER, Study.INTERVENTIONS)
            for run in self._runs_of(self._training(name))
        ]

    def arguments(self, experiment: str, run: str) -> list[str]:
        """Which seeds and arm a training job has, as command-line words."""
        seed, _, number = run.partition("-")
        seeds = self._training(experiment).seeds if seed == ALL else [int(seed)]
        words = ["--seeds", *map(str, seeds), "--threads", str(self.threads())]
        if number:
            words += ["--arm", self._training(experiment).all_arms()[int(number)]]
        return words

    def starter(self) -> list[str]:
        """What starts a training job's launcher on every node, before the interpreter."""
        if self.num_nodes() == 1:
            return ["nice", "-n", LOWEST_PRIORITY] if self._is_idle() else []
        words = ["srun", f"--nodes={self.num_nodes()}", f"--ntasks={self.num_nodes()}"]
        words += ["--ntasks-per-node=1", "--kill-on-bad-exit=1"]
        words += [f"--cpus-per-task={self.processes_per_node() * self.threads()}"]
        return words + ([f"--gpus-per-node={self.processes_per_node()}"] if self.num_gpus() else [])

    def _is_idle(self) -> bool:
        return self._study is not None and self._study.priority == "idle"

    def records_of(self, profile: str) -> list[str]:
        """Where a training job keeps finished runs beside the store, as command-line words."""
        if self._study is None or not self._study.keeps_records:
            return []
        return ["--records", f"{RECORDS_FOLDER}/{profile}/records"]

    def launcher(self) -> list[str]:
        """What starts a training job's processes, after the interpreter; words of the shell.

        The torchruns of several nodes meet at the node whose shell reads this.
        """
        if self.num_processes() == 1:
            return []
        torchrun = ["-m", "torch.distributed.run"]
        processes = f"--nproc-per-node={self.processes_per_node()}"
        if self.num_nodes() == 1:
            return [*torchrun, "--standalone", processes]
        meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint=$(hostname):{RENDEZVOUS_PORT}"]
        return [*torchrun, f"--nnodes={self.num_nodes()}", processes, *meeting]

    def check_launcher(self) -> None:
        """Refuse several nodes where Slurm is not at hand.

        Raises:
            ConfigError: `srun` is not on the path.
        """
        if self.num_nodes() > 1 and shutil.which("srun") is None:
            raise ConfigError(
                f"mxfp4.num_nodes is {self.num_nodes()} and `srun` is not on the path: several "
                "nodes are Slurm's business (workflow/docs/slurm.md). Run where Slurm is, or set "
                "it to 1"
            )

    def num_nodes(self) -> int:
        """Nodes of a training job."""
        return self._study.num_nodes if self._study else 1

    def processes_per_node(self) -> int:
        """Processes of a training job on each of its nodes."""
        return self.num_processes() // self.num_nodes()

    def memory_mb(self) -> int:
        """Host memory of a training job on each of its nodes."""
        return training_memory_mb(self._study) if self._study else 0

    def pretrained_memory_mb(self, experiment: str) -> int:
        """Host memory of a measurement on a published model."""
        return pretrained_memory_mb(self.study, experiment)

    def step_resources(self) -> dict[str, str | int]:
        """What Slurm must know of a job that starts its own steps, on several nodes.

        The executor plugin then leaves `srun` to the job (`mpi`), and wants tasks to plan with.
        Nodes are its own: two jobs could not meet at one port.
        """
        if self.num_nodes() == 1:
            return {}
        return {
            "mpi": "srun",
            "tasks_per_node": self.processes_per_node(),
            "cpus_per_task": self.threads(),
            "slurm_extra": "--exclusive",
        }

    def check_installed(self) -> None:
        """Refuse a trainer that is not installed here.

        Raises:
            ConfigError: the study asks for torchtitan and there is none.
        """
        if self._study is not None and self._study.trainer != TrainerKind.OWN:
            load_trainer(self._study.trainer).trainer_name()

    def threads(self) -> int:
        """CPU threads of one process: small models gain nothing from more."""
        return 1

    def num_gpus(self) -> int:
        """GPUs that a training job takes."""
        return self.num_processes() if self._study and self._study.device == "cuda" else 0

    def measuring_gpus(self) -> int:
        """GPUs of a measurement, which is one process."""
        return min(1, self.num_gpus())

    def num_processes(self) -> int:
        """Processes of a training job."""
        return self._study.num_processes if self._study else 1

    def tables_key(self, modules: Iterable[str]) -> str:
        """When the tables must be written again: they show names and words of the study."""
        values = self._study.model_dump(mode="json") if self._study else None
        return digest([values, code_digest(*modules)])

    def corpus_key(self) -> str:
        """When the corpus must be prepared again."""
        if self._study is None:
            return ""
        tokenizer = self._study.tokenizer.model_dump(mode="json")
        values = [*_text_state(self._study.corpus), tokenizer]
        return digest([values, code_digest("blockwise.mxfp4.corpus")])

    def pretrained_key(self) -> str:
        """When the published model and its text must be made ready again."""
        pretrained = self._study.pretrained if self._study else None
        if pretrained is None:
            return ""
        model = pretrained.model
        values = [*_text_state(pretrained.corpus), model.model_dump(mode="json")]
        if isinstance(model, PathModel):
            values.append(file_states(model.folder))
        return digest([values, code_digest("blockwise.mxfp4.pretrained")])

    def training_key(self, experiment: str) -> str:
        """When a training job must look for missing runs again."""
        code = "blockwise.mxfp4.train_arm", STEPS[self.study.trainer]
        return self.measurement_key(experiment, *code)

    def measurement_key(self, experiment: str, *modules: str) -> str:
        """When a measurement must be made again, or any job of an experiment: its modules."""
        entry = self.study.experiments[experiment]
        apart = {"experiments", "arms", "caption", "num_nodes", "priority", "keeps_records"}
        shared = self.study.model_dump(mode="json", exclude=apart)
        arms = {arm: self.study.arms[arm].model_dump(mode="json") for arm in named_arms(entry)}
        return digest([entry.model_dump(mode="json"), shared, arms, code_digest(*modules)])

    def _on_published(self, kind: type[PublishedT]) -> list[tuple[str, PublishedT]]:
        entries = self._study.experiments if self._study else {}
        return [(name, entry) for name, entry in entries.items() if isinstance(entry, kind)]

    def _training(self, experiment: str) -> TrainingExperiment:
        entry = self.study.experiments[experiment]
        assert isinstance(entry, TrainingExperiment), experiment
        return entry

    def _runs_of(self, experiment: TrainingExperiment) -> list[str]:
        if self.study.jobs == "per_experiment":
            return [ALL]
        if self.study.jobs == "per_seed":
            return [str(seed) for seed in experiment.seeds]
        return [
            f"{seed}-{number}"
            for seed in experiment.seeds
            for number in range(len(experiment.all_arms()))
        ]


def _text_state(corpus: Corpus) -> list[Any]:
    """What changes where the text of a corpus does."""
    values: list[Any] = [corpus.model_dump(mode="json")]
    if corpus.kind in ("stdlib", "stdlib_docs", "docstrings"):
        values.append(platform.python_version())
    if corpus.kind == "docstrings":
        values.append(licences(corpus.distributions))
    if corpus.kind == "path":
        values.append(file_states(Path(corpus.folder)))
    return values
