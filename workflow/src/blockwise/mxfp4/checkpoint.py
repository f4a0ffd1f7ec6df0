"""Checkpoints of a training run: everything its next step depends on, in one file.

Written through a temporary file and a rename like every artifact, so that the one on disk is
always whole. It carries the key of its run: a checkpoint of another configuration is refused.
"""

import io
import pickle
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)

from blockwise.artifacts import write_bytes
from blockwise.errors import ArtifactError
from blockwise.mxfp4 import distributed
from blockwise.mxfp4.records import Evaluation


@dataclass
class Progress:
    """How far a run is, and what it has recorded."""

    step: int = 0
    train_losses: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    train_s: float = 0.0
    num_resumes: int = 0

    def is_evaluated(self) -> bool:
        """Whether the present step has been evaluated."""
        return bool(self.evaluations) and self.evaluations[-1].step == self.step


class Resumable(Protocol):
    """What a checkpoint holds the state of."""

    model: Any
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    progress: Progress


OPTIONS = StateDictOptions(full_state_dict=True, cpu_offload=True)


def save_checkpoint(path: Path, key: str, run: Resumable) -> None:
    """Write the state of a run; with several processes the first one writes."""
    model_state, optimizer_state = _states(run.model, run.optimizer)
    if distributed.rank() != 0:
        return
    content = io.BytesIO()
    progress = {
        **asdict(run.progress),
        "evaluations": [evaluation.model_dump() for evaluation in run.progress.evaluations],
    }
    torch.save(
        {
            "key": key,
            "model": model_state,
            "optimizer": optimizer_state,
            "generator": run.generator.get_state(),
            "progress": progress,
        },
        content,
    )
    write_bytes(path, content.getvalue())


def load_checkpoint(path: Path, key: str, run: Resumable) -> None:
    """Continue from a checkpoint, if there is one.

    Raises:
        ArtifactError: it is damaged, or of another run.
    """
    if not path.is_file():
        return
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ArtifactError(
            f"the checkpoint {path} is damaged ({type(error).__name__}); delete it and "
            "the run starts anew"
        ) from error
    if not isinstance(content, dict) or content.get("key") != key:
        found = content.get("key") if isinstance(content, dict) else None
        raise ArtifactError(
            f"the checkpoint {path} belongs to the run {found}, not to {key}: configuration, "
            "corpus, code or torch differ. Delete it to start anew, or restore what it was made "
            "with"
        )
    set_state_dict(
        run.model,
        run.optimizer,
        model_state_dict=content["model"],
        optim_state_dict=content["optimizer"],
        options=StateDictOptions(full_state_dict=True),
    )
    run.generator.set_state(content["generator"])
    saved = content["progress"]
    evaluations = [Evaluation.model_validate(one) for one in saved.pop("evaluations")]
    run.progress = Progress(**saved, evaluations=evaluations)
    run.progress.num_resumes += 1


def _states(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
    return get_state_dict(model, optimizer, options=OPTIONS)
