"""One process or many: FSDP2 on the processes that torchrun started.

A batch is shared by sequences and gradients are averaged, so that any number of processes takes
the same steps up to the order of sums, of every recipe that draws no random numbers and shares no
scale over a whole tensor (fp8's is that of a process's own tokens). Random numbers are a function
of the step and of the process's number (`mxfp4.noise`): two processes draw other ones than one.
With one process everything here does nothing.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from blockwise.errors import ConfigError

T = TypeVar("T")


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """The group of all processes, where torchrun started more than one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def check_num_processes(expected: int) -> None:
    """Refuse to train with another number of processes than the records will say.

    Raises:
        ConfigError: there are more or fewer.
    """
    if num_processes() != expected:
        raise ConfigError(
            f"{num_processes()} processes were started, and mxfp4.num_processes is {expected}; "
            f"start {expected}, with torchrun --nproc-per-node (times --nnodes), or change the key"
        )


def rank() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def num_processes() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def of_first(compute: Callable[[], T]) -> T:
    """What the first process finds, for all of them: files change while others look."""
    if num_processes() == 1:
        return compute()
    found: list[Any] = [compute() if rank() == 0 else None]
    distributed.broadcast_object_list(found)
    result: T = found[0]
    return result


def of_all(own: T) -> list[T]:
    """What every process has, in their order."""
    if num_processes() == 1:
        return [own]
    found: list[Any] = [None] * num_processes()
    distributed.all_gather_object(found, own)
    return found


def wait_for_all() -> None:
    """Until every process is here."""
    if num_processes() > 1:
        distributed.barrier()


def shard(model: nn.Module, layers: nn.ModuleList, method: str) -> None:
    """Share parameters, gradients and optimizer state, layer by layer.

    Args:
        model: the whole model.
        layers: its parts that are gathered one at a time.
        method: the method of the model that training calls.
    """
    if num_processes() > 1:
        for layer in layers:
            fully_shard(layer)
        fully_shard(model)
        register_fsdp_forward_method(model, method)


def own_part(batch: Tensor) -> Tensor:
    """The sequences of this process."""
    return batch.chunk(num_processes())[rank()]


def mean(value: Tensor) -> float:
    """Mean over the processes."""
    if num_processes() > 1:
        value = value.clone()
        distributed.all_reduce(value)
        value /= num_processes()
    return float(value)


def total(value: float, device: str) -> float:
    """Sum over the processes, in float64."""
    if num_processes() == 1:
        return value
    summed = torch.tensor(value, dtype=torch.float64, device=device)
    distributed.all_reduce(summed)
    return float(summed)


def full(value: Tensor) -> float:
    """A value that may be shared, such as the norm of sharded gradients."""
    return float(value.full_tensor() if isinstance(value, DTensor) else value)
