"""One process or many: FSDP2 on the processes that torchrun started.

A batch is shared by sequences and gradients are averaged, so that any number of processes takes
the same steps up to the order of sums. With one process everything here does nothing.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

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


def full(value: Tensor) -> float:
    """A value that may be shared, such as the norm of sharded gradients."""
    return float(value.full_tensor() if isinstance(value, DTensor) else value)
