"""Checkpoints of a training run: everything its next step depends on, one folder a step.

torch.distributed.checkpoint writes them: every process its own shards, and every process reads
what it needs, so that two processes continue what one began and the other way round. A card is
written last, through a temporary file and a rename: a folder without one does not count, and the
one before it goes only then. The card carries the key of its run: a checkpoint of another
configuration is refused.
"""

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from blockwise.artifacts import read_model, write_model
from blockwise.errors import ArtifactError
from blockwise.mxfp4 import distributed
from blockwise.mxfp4.checkpoint_reader import CheckpointPlanner, CheckpointReader
from blockwise.mxfp4.records import SCHEMA_VERSION, Evaluation, Record
from blockwise.torch_files import UNREADABLE

CARD_FILE = "checkpoint.json"


@dataclass
class Progress:
    """How far a run is, and what it has recorded."""

    step: int = 0
    train_losses: list[float] = Field(default_factory=list)
    gradient_norms: list[float] = Field(default_factory=list)
    evaluations: list[Evaluation] = Field(default_factory=list)
    train_s: float = 0.0
    process_counts: list[int] = Field(default_factory=list)  # of each start

    @property
    def num_resumes(self) -> int:
        """How often the run continued from a checkpoint."""
        return max(len(self.process_counts) - 1, 0)

    def is_evaluated(self) -> bool:
        """Whether the present step has been evaluated."""
        return bool(self.evaluations) and self.evaluations[-1].step == self.step


class CheckpointCard(Record):
    """What a complete checkpoint is."""

    schema_version: Literal[1] = SCHEMA_VERSION
    key: str
    progress: Progress
    file_bytes: dict[str, int]


class Resumable(Protocol):
    """What a checkpoint holds the state of."""

    model: Any
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    progress: Progress


def save_checkpoint(folder: Path, key: str, run: Resumable) -> None:
    """Write the state of a run; every process calls this."""
    target = folder / f"step-{run.progress.step:08d}"
    if distributed.rank() == 0:
        shutil.rmtree(target, ignore_errors=True)  # what a killed run left
    distributed.wait_for_all()
    with _alone_or_not() as no_dist:
        save(_state(run), checkpoint_id=target, no_dist=no_dist)
    if distributed.rank() != 0:
        return
    card = CheckpointCard(key=key, progress=run.progress, file_bytes=_file_bytes(target))
    write_model(target / CARD_FILE, card)
    for other in folder.iterdir():
        if other != target:
            shutil.rmtree(other, ignore_errors=True)


def load_checkpoint(folder: Path, key: str, run: Resumable) -> None:
    """Continue from the last checkpoint, if there is one, and note the start.

    Raises:
        ArtifactError: it is damaged, or of another run.
    """
    found = distributed.of_first(lambda: max(folder.glob(f"*/{CARD_FILE}"), default=None))
    if found is not None:
        _load(found, key, run)
    run.progress.process_counts.append(distributed.num_processes())


def _load(card_path: Path, key: str, run: Resumable) -> None:
    card, source = read_model(card_path, CheckpointCard), card_path.parent
    if card.key != key:
        raise ArtifactError(
            f"the checkpoint {source} belongs to the run {card.key}, not to {key}: configuration, "
            "corpus, code or torch differ. Delete it to start anew, or restore what it was made "
            "with"
        )
    if card.file_bytes != _file_bytes(source):
        raise _damaged(source, "its files are not those of its card")
    state = _state(run)
    try:
        with _alone_or_not() as no_dist:
            load(
                state,
                storage_reader=CheckpointReader(source),
                planner=CheckpointPlanner(),
                no_dist=no_dist,
            )
        set_state_dict(
            run.model,
            run.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
        )
        run.generator.set_state(state["generator"])
    except (*UNREADABLE, CheckpointException) as error:
        raise _damaged(source, type(error).__name__) from error
    run.progress = card.progress


@contextmanager
def _alone_or_not() -> Iterator[bool]:
    """Whether torch shall ask no other process; it warns of what it was told."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield distributed.num_processes() == 1


def _state(run: Resumable) -> dict[str, Any]:
    """What torch saves, and the places that it loads into."""
    model, optimizer = get_state_dict(run.model, run.optimizer)
    return {"model": model, "optimizer": optimizer, "generator": run.generator.get_state()}


def _file_bytes(folder: Path) -> dict[str, int]:
    """Sizes, which tell a file that was cut; digests would read a hundred gigabytes again."""
    files = (path for path in folder.iterdir() if path.name != CARD_FILE)
    return {path.name: path.stat().st_size for path in files}


def _damaged(folder: Path, why: str) -> ArtifactError:
    return ArtifactError(
        f"the checkpoint {folder} is damaged ({why}); delete it and the run starts anew"
    )
