"""What the jobs of a batch read: the profile, the sessions, the model, and the plan they make."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from blockwise.artifacts import digest, read_model
from blockwise.compaction.plan import BatchPlan, plan_batch
from blockwise.config.backbones import Backbone
from blockwise.config.profile import Profile
from blockwise.data.documents import SessionSet
from blockwise.models.prepared_model import PreparedModel
from blockwise.models.renderer import Renderer


@dataclass(frozen=True)
class BatchInputs:
    """One backbone and dataset, read and planned."""

    profile: Profile
    backbone: Backbone
    sessions: SessionSet
    model: PreparedModel
    renderer: Renderer
    plan: BatchPlan

    @property
    def config_digest(self) -> str:
        """Of the profile, for provenance."""
        return digest(self.profile.model_dump(mode="json"))

    @property
    def caption(self) -> str:
        """What every figure of the batch says: a published model's weights, and the warning."""
        weights = self.model.gguf.words if self.model.gguf is not None else ""
        warning = self.profile.caption_of(self.plan.backbone, self.sessions.dataset)
        return "; ".join(filter(None, [weights, warning]))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that every job of a batch has."""
    add_input_arguments(parser)
    for flag in ("store", "output"):
        parser.add_argument(f"--{flag}", type=Path, required=True)


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of what `read_inputs` reads."""
    for flag in ("config", "sessions", "model", "prompts"):
        parser.add_argument(f"--{flag}", type=Path, required=True)
    parser.add_argument("--backbone", required=True)


def read_inputs(arguments: argparse.Namespace) -> BatchInputs:
    """Read what the command line names.

    Raises:
        ArtifactError: a file is missing or damaged.
    """
    profile = read_model(arguments.config, Profile)
    sessions = read_model(arguments.sessions, SessionSet)
    model = read_model(arguments.model, PreparedModel)
    backbone = profile.backbones[arguments.backbone]
    renderer = Renderer(model.tokenizer_path, backbone.request.chat_template_arguments)
    plan = plan_batch(
        profile,
        arguments.backbone,
        sessions,
        model,
        renderer=renderer,
        prompts_folder=arguments.prompts,
    )
    return BatchInputs(profile, backbone, sessions, model, renderer, plan)
