"""Checkpoints of a training run: everything its next step depends on, one folder a step.

torch.distributed.checkpoint writes them: every process its own shards, and every process reads
what it needs, so that two processes continue what one began and the other way round. A card is
written last, through a temporary file and a rename: a folder without one does not count, and the
one before it goes only then. The card carries the key of its run: a checkpoint of another
configuration is refused. It also carries the digest of every file, because torch reads flipped
bits without a word; a checkpoint that is not what its card says does not count any more.
"""

import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from blockwise.artifacts import digest_file, load_sealed, write_sealed
from blockwise.errors import ArtifactError
from blockwise.mxfp4 import distributed
from blockwise.mxfp4.checkpoint_reader import CheckpointPlanner, CheckpointReader
from blockwise.mxfp4.records import SCHEMA_VERSION, Evaluation, Record
from blockwise.mxfp4.torch_files import UNREADABLE

CARD_SUFFIX = ".json"
CARD_FILE = f"checkpoint{CARD_SUFFIX}"


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
    digests: dict[str, str]  # of every file beside it


class Resumable(Protocol):
    """What a checkpoint holds the state of."""

    model: Any
    optimizer: torch.optim.Optimizer
    averages: dict[str, torch.Tensor]  # of the weights; none: empty
    progress: Progress


def save_checkpoint(folder: Path, key: str, run: Resumable) -> None:
    """Write the state of a run; every process calls this."""
    target = folder / f"step-{run.progress.step:08d}"
    if distributed.rank() == 0:
        shutil.rmtree(target, ignore_errors=True)  # what a killed run left
    distributed.wait_for_all()
    try:
        with _alone_or_not() as no_dist:
            save(_state(run), checkpoint_id=target, no_dist=no_dist)
    except (OSError, RuntimeError, CheckpointException) as error:
        # Torch does not always say that a disk is full.
        place = next(path for path in (folder, *folder.parents) if path.exists())
        free_bytes = shutil.disk_usage(place).free
        raise ArtifactError(
            f"cannot write the checkpoint {target}: {_cause(error)}; {free_bytes:,} bytes are free "
            "there. The one before it is kept; free space or mend the permissions and run the "
            "same command again"
        ) from error
    shares = distributed.of_all(_own_digests(target))
    if distributed.rank() != 0:
        return
    digests = {name: digest for share in shares for name, digest in share.items()}
    card = CheckpointCard(key=key, progress=run.progress, digests=digests)
    write_sealed(target / CARD_FILE, card)
    for other in folder.iterdir():
        if other != target:
            shutil.rmtree(other, ignore_errors=True)


def load_checkpoint(
    folder: Path, key: str, run: Resumable, report: Callable[[str], None] = print
) -> None:
    """Continue from the last whole checkpoint, if there is one, and note the start.

    Args:
        folder: of the run's checkpoints.
        key: of the run.
        run: what is given their state.
        report: told, in one line, about every damaged one, which does not count any more.

    Raises:
        ArtifactError: it is of another run, or cannot be read.
    """
    while (source := distributed.of_first(lambda: _last(folder))) is not None:
        card_path = source / CARD_FILE
        read = partial(load_sealed, card_path, CheckpointCard, report)
        card = distributed.of_first(read)
        if card is None:
            continue
        if card.key != key:
            raise ArtifactError(
                f"the checkpoint {source} belongs to the run {card.key}, not to {key}: "
                "configuration, corpus, code or torch differ. Delete it to start anew, or restore "
                "what it was made with"
            )
        if _is_whole(source, card):
            _load(source, card, run)
            break
        if distributed.rank() == 0:
            card_path.replace(card_path.with_suffix(".damaged"))
            report(f"the checkpoint {source} is damaged: the run goes on without it")
        distributed.wait_for_all()
    run.progress.process_counts.append(distributed.num_processes())


def _last(folder: Path) -> Path | None:
    """The newest checkpoint that has a card."""
    cards = folder.glob(f"*/{CARD_FILE}")
    return max((path.parent for path in cards), default=None)


def _is_whole(source: Path, card: CheckpointCard) -> bool:
    """Whether the files are those of the card; every process reads a share of them."""
    own = _own_digests(source)
    agrees = all(card.digests.get(name) == digest for name, digest in own.items())
    found = distributed.of_all((agrees, set(own)))
    names = set().union(*(names for _, names in found))
    return all(agrees for agrees, _ in found) and names == set(card.digests)


def _load(source: Path, card: CheckpointCard, run: Resumable) -> None:
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
    except (*UNREADABLE, CheckpointException) as error:
        raise ArtifactError(
            f"the checkpoint {source} cannot be read ({_cause(error)}), though its files are as "
            "they were written; try again, or delete it and the run starts anew"
        ) from error
    run.progress = card.progress


def _cause(error: BaseException) -> str:
    """What went wrong, in one line; torch wraps it, and says where it was thrown."""
    failures = error.failures if isinstance(error, CheckpointException) else {}
    first = next((failure[0] for failure in failures.values()), error)
    return f"{type(first).__name__}: {first}".splitlines()[0]


@contextmanager
def _alone_or_not() -> Iterator[bool]:
    """Whether torch shall ask no other process; it warns of what it was told."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield distributed.num_processes() == 1


def _state(run: Resumable) -> dict[str, Any]:
    """What torch saves, and the places that it loads into."""
    model, optimizer = get_state_dict(run.model, run.optimizer)
    state = {"model": model, "optimizer": optimizer}
    return {**state, "averages": run.averages} if run.averages else state


def _own_digests(folder: Path) -> dict[str, str]:
    """Digests of this process's share of the files: all processes read a checkpoint once."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix != CARD_SUFFIX)
    own = names[distributed.rank() :: distributed.num_processes()]
    return {name: digest_file(folder / name) for name in own}
