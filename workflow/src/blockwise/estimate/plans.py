"""What each batch of a profile would play, as far as this machine knows before any job.

The plan is the run's own (`plan_batch`), on the dataset's and the backbone's own tokens where both
are here; otherwise documents of the published size or four characters a token stand in.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from blockwise.compaction.fit import check_sessions_fit
from blockwise.compaction.plan import BatchPlan, plan_batch
from blockwise.config.profile import Profile
from blockwise.errors import BlockwiseError, ConfigError
from blockwise.estimate.renderers import Renderers, is_assumed
from blockwise.estimate.sessions import Datasets
from blockwise.models.prepared_model import PreparedModel
from blockwise.models.renderer import Renderer
from blockwise.run.pipeline import PROMPTS_FOLDER, Pipeline


@dataclass(frozen=True)
class KnownBatch:
    """One backbone and dataset, planned. `stands_in` says in words what is not their own."""

    plan: BatchPlan
    renderer: Renderer
    stands_in: tuple[str, ...]

    def problem(self) -> str | None:
        """Why its sessions do not fit, if they do not."""
        try:
            cells = ((cell.experiment, cell.spec) for cell in self.plan.selected)
            check_sessions_fit(cells, self.plan.sessions, self.renderer)
        except BlockwiseError as error:
            return str(error)
        return None


class Plans:
    """Plans of a profile's batches.

    Args:
        profile: the configuration.
        runs_folder: where a run of this profile leaves prepared datasets and backbones.
        prompts_folder: compaction prompts.
    """

    def __init__(self, profile: Profile, runs_folder: Path, prompts_folder: Path) -> None:
        self._profile, self._prompts = profile, prompts_folder
        self._datasets = Datasets(profile, runs_folder / "data")
        self._renderers = Renderers(runs_folder / "backbones")

    def of(self, backbone: str, dataset: str) -> KnownBatch:
        """The plan of one batch.

        Raises:
            BlockwiseError: it cannot be planned, e.g. the documents make no such sessions.
        """
        renderer = self._renderers.of(backbone, self._profile.backbones[backbone])
        sessions, is_real = self._datasets.sessions(dataset, backbone, renderer)
        stands_in = []
        if not is_real:
            stands_in.append(
                f"dataset {dataset} is not on this machine: documents of the published average "
                "size, chained to target_tokens (assumed)"
            )
        if is_assumed(renderer):
            stands_in.append(
                f"{backbone}: its tokenizer is not on this machine: four characters a token, "
                "five tokens a message (assumed)"
            )
        plan = plan_batch(
            self._profile,
            backbone,
            sessions,
            _no_model(backbone),
            renderer=renderer,
            prompts_folder=self._prompts,
        )
        return KnownBatch(plan, renderer, tuple(stands_in))

    def problems(self, batches: Iterable[tuple[str, str]]) -> tuple[list[str], list[str]]:
        """Sessions that do not fit: surely, and as far as stand-ins tell.

        A batch that cannot be planned is no more than likely: the job that reads its data says
        why, and may find it better than this machine does.
        """
        sure: list[str] = []
        likely: list[str] = []
        for backbone, dataset in batches:
            where = f"{backbone} on {dataset}"
            try:
                batch = self.of(backbone, dataset)
            except BlockwiseError as error:
                likely.append(f"{where} cannot be planned: {error}")
                continue
            problem = batch.problem()
            if problem is not None:
                said = f"{where}: {problem}"
                if batch.stands_in:
                    likely.append("\n".join([said, *batch.stands_in]))
                else:
                    sure.append(said)
        return sure, likely


def _no_model(backbone: str) -> PreparedModel:
    """The plan asks for a digest, which only tells records apart."""
    return PreparedModel(
        backbone=backbone,
        source="none",
        path="",
        revision=None,
        tokenizer_path="",
        digest="",
        num_parameters=None,
    )


def check_fits(pipeline: Pipeline) -> None:
    """Refuse sessions that cannot be played as asked, as far as this machine knows them.

    Exact where data and tokenizer are here; what stands in for them is only warned of.

    Raises:
        ConfigError: naming experiment, session, sizes and remedy.
    """
    plans = Plans(pipeline.profile, Path(pipeline.results) / "runs", PROMPTS_FOLDER)
    sure, likely = plans.problems(pipeline.batches())
    for text in likely:
        print(f"may not fit: {text}", file=sys.stderr)
    if sure:
        raise ConfigError("\n".join(sure))
