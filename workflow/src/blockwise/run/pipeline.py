"""What the Snakefile asks: the profile, the names in it, and when a stage must run again.

A stage's key is a digest of the configuration values and the code that its outputs depend on;
rules carry it as a parameter. The resolved profile is a file that jobs read, but never an
input of a rule: a changed value re-runs the stages whose keys hold it, and no other.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from blockwise.artifacts import canonical_json, digest, digest_file, file_states, write_bytes
from blockwise.compaction.judge_probe import PROBE_FILE
from blockwise.config.arms import LAYOUT_PACKAGE, SEQUENTIAL, known_layouts
from blockwise.config.backbones import GgufModel, HubModel, PathModel, PocketModel
from blockwise.config.choices import PROTOCOL_PACKAGE, Protocol
from blockwise.config.claims import load_claims
from blockwise.config.datasets import Source, format_module, local_file
from blockwise.config.load import DEFAULT_FILE, check_files, check_pinned, load_profile
from blockwise.config.prompts import prompt_path
from blockwise.config.split import Part, Phase
from blockwise.figures.registry import figures_of
from blockwise.provenance import code_digest
from blockwise.report.captions import caption_of
from blockwise.run.file_times import pull_back
from blockwise.run.job_resources import server_memory_mb
from blockwise.run.training_pipeline import TrainingPipeline
from blockwise.tables.registry import Family

PROMPTS_FOLDER = Path("config/prompts")
CLAIMS_FILE = Path("config/claims.yaml")
NOTHING = "(?!)"  # a pattern that nothing matches


class Pipeline:
    """A validated profile and the keys of its stages.

    Args:
        files: configuration files in order; empty means the default profile.
        overrides: values of `--config`.

    Raises:
        ConfigError: the configuration is refused.
    """

    def __init__(self, files: Sequence[Path], overrides: Mapping[str, Any]) -> None:
        self.profile = load_profile(files or [DEFAULT_FILE], overrides, PROMPTS_FOLDER)
        check_files(self.profile, PROMPTS_FOLDER)
        self._claims = load_claims(CLAIMS_FILE)
        self.results = f"results/{self.profile.profile}"
        self.figures = f"figures/{self.profile.profile}"
        self.config_file = f"{self.results}/config.json"
        self.training = TrainingPipeline(self.profile.mxfp4)

    def begin_run(self) -> None:
        """Refuse what cannot run here, and write the resolved profile that the jobs read.

        Files that a wrong clock dated ahead get today's time, or no job could follow them.

        Raises:
            ConfigError: the profile runs pinned sources only and something is unpinned, names a
                trainer that is not installed, or trains on several nodes and there is no Slurm.
        """
        check_pinned(self.profile)
        self.training.check_installed()
        self.training.check_launcher()
        text = canonical_json(self.profile.model_dump(mode="json")) + "\n"
        path = Path(self.config_file)
        write_bytes(path, text.encode())
        pull_back(path.stat().st_mtime_ns, Path(self.results), Path(self.figures))

    def batches(self) -> list[tuple[str, str]]:
        """Every (backbone, dataset) that some experiment plays."""
        return [
            (backbone, dataset)
            for backbone in self.profile.backbones
            for dataset in self.profile.datasets
            if self.profile.experiments_of(backbone, dataset)
        ]

    def families(self) -> list[Family]:
        """The studies of this profile, by the tables they fill."""
        return [Family.COMPACTION, *([Family.MXFP4] if self.profile.mxfp4 else [])]

    def figure_files(self, *families: Family) -> list[str]:
        """The files of every figure of some studies."""
        return [
            f"{self.figures}/{figure}.{suffix}"
            for figure in figures_of(*families)
            for suffix in ("pdf", "png", "csv")
        ]

    def parts(self, backbone: str, dataset: str) -> list[str]:
        """The parts of a batch that is split; none of one that a single job plays."""
        return [part.name for part in self.profile.parts_of(backbone, dataset)]

    def is_timed(self, backbone: str, dataset: str, part: str | None = None) -> bool:
        """Whether times of a batch, or of this part of it, count."""
        if part is not None:
            return Part.parse(part).phase is Phase.TIMING
        experiments = self.profile.experiments_of(backbone, dataset).values()
        return any(experiment.is_timed for experiment in experiments)

    def backbone_pattern(self, *, is_split: bool) -> str:
        """A wildcard pattern of the backbones whose batches are split, or are not."""
        names = [
            re.escape(name)
            for name in self.profile.backbones
            if self.profile.is_split(name) == is_split
        ]
        return "|".join(names) or NOTHING

    def num_gpus(self, backbone: str) -> int:
        """GPUs that a backbone's servers take."""
        return self.profile.backbones[backbone].num_gpus

    def memory_mb(self, backbone: str) -> int:
        """Host memory of a job that serves a backbone."""
        return server_memory_mb(self.profile.backbones[backbone])

    def dataset_key(self, dataset: str) -> str:
        """When a dataset must be prepared again."""
        dataset_config = self.profile.datasets[dataset]
        entry = dataset_config.model_dump(mode="json", exclude={"sessions"})
        chosen = dataset_config.row_ids
        files = [_local_file(dataset_config.source), Path(chosen) if chosen else None]
        contents = [
            digest_file(file) if file is not None and file.is_file() else None for file in files
        ]
        return _key([entry, contents], "blockwise.data.prepare", self._format_module(dataset))

    def fetched_model_files(self, backbone: str) -> list[str]:
        """The record of a backbone's fetched model, if its model is published elsewhere."""
        if not isinstance(self.profile.backbones[backbone].model, HubModel | GgufModel):
            return []
        return [f"{self.results}/runs/models/{backbone}.json"]

    def fetched_model_key(self, backbone: str) -> str:
        """When a backbone's model must be fetched again."""
        entry = self.profile.backbones[backbone]
        values = [entry.model.model_dump(mode="json"), entry.engine.kind]
        return _key(values, "blockwise.models.fetch_model")

    def backbone_key(self, backbone: str) -> str:
        """When a backbone's files must be prepared again."""
        entry = self.profile.backbones[backbone]
        values = entry.model_dump(mode="json", include={"model", "context_window_tokens"})
        model = entry.model
        files = file_states(model.folder) if isinstance(model, PathModel | PocketModel) else None
        return _key([values, files], "blockwise.models.prepare")

    def pocket_key(self, backbone: str) -> str:
        """When a pocket backbone must be trained again: its recipe; code is its digest's business.

        The job itself refuses a checkpoint whose recipe digest is another one.
        """
        return digest(self.profile.pocket[backbone].model_dump(mode="json"))

    def sessions_key(self, backbone: str, dataset: str) -> str:
        """When sessions must be built again, or held against what experiments ask of them."""
        plan = self.profile.datasets[dataset].sessions.model_dump(mode="json")
        window = self.profile.backbones[backbone].context_window_tokens
        asked = self._experiment_values(backbone, dataset)
        modules = ("blockwise.compaction.sessions", "blockwise.compaction.fit")
        return _key([plan, window, asked], *modules, self._format_module(dataset))

    def compaction_key(self, backbone: str, dataset: str) -> str:
        """When a batch must look for missing cells again."""
        values = {
            "backbone": self.profile.backbones[backbone].model_dump(mode="json", exclude={"split"}),
            **self._experiment_values(backbone, dataset),
        }
        loaded = [f"{LAYOUT_PACKAGE}.{name}" for name in (SEQUENTIAL, *known_layouts())]
        loaded += [f"{PROTOCOL_PACKAGE}.{protocol}" for protocol in Protocol]
        loaded.append(self._format_module(dataset))
        return _key(values, "blockwise.compaction.play_batch", *loaded)

    def _format_module(self, dataset: str) -> str:
        return format_module(self.profile.datasets[dataset].format)

    def _experiment_values(self, backbone: str, dataset: str) -> dict[str, Any]:
        experiments = self.profile.experiments_of(backbone, dataset)
        return {
            "experiments": {
                name: experiment.model_dump(mode="json") for name, experiment in experiments.items()
            },
            "prompts": {
                name: prompt_path(PROMPTS_FOLDER, name).read_text()
                for experiment in experiments.values()
                for name in experiment.prompt_names()
            },
        }

    def fetched_embedder_files(self) -> list[str]:
        """The record of the profile's embedder, if it is a published one."""
        if self.profile.embedder.kind != "files":
            return []
        return [f"{self.results}/runs/embedder.json"]

    def fetched_embedder_key(self) -> str:
        """When the embedder must be fetched again."""
        values = self.profile.embedder.model_dump(mode="json")
        return _key(values, "blockwise.compaction.embedder_model")

    def similarity_key(self) -> str:
        """When summaries must be compared again."""
        embedder = self.profile.embedder
        files = file_states(Path(embedder.path)) if embedder.kind == "path" else None
        return _key([embedder.model_dump(mode="json"), files], "blockwise.compaction.similarity")

    def judge_key(self) -> str:
        """When answers must be judged again."""
        judge = self.profile.judge
        values = judge.model_dump(mode="json") if judge else None
        prompt = prompt_path(PROMPTS_FOLDER, judge.prompt).read_text() if judge else None
        probe = digest_file(PROBE_FILE) if judge else None
        return _key([values, prompt, probe], "blockwise.compaction.judging")

    def figure_caption(self, figure: str) -> str:
        """What the report says below a figure."""
        return caption_of(figure, self._claims)

    def claims_key(self) -> str:
        """When the claims must be judged again, beside a change of the tables."""
        return _key(CLAIMS_FILE.read_text(), "blockwise.claims.ledger")

    def manifest_key(self) -> str:
        """When the manifest must be written again, beside a change of its files."""
        return _key(self.profile.model_dump(mode="json"), "blockwise.run.manifest")


def stage_code_key(modules: Iterable[str]) -> str:
    """Key of a stage that depends on code and its input files alone."""
    return code_digest(*modules)


def _local_file(source: Source) -> Path | None:
    """The file on this machine behind a source, whose content may change under its name."""
    if source.kind == "path":
        return Path(source.path)
    return local_file(source.url) if source.kind == "url" else None


def _key(values: Any, *modules: str) -> str:
    return digest([values, code_digest(*modules)])
