"""What two processes under torchrun do with wrapped models, for test_other_models.py."""

import copy

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from blockwise.errors import ConfigError
from blockwise.mxfp4 import convert

RANDOM = "F+D+W+SR(D:dy,W:dy)+RHT16(W)"


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down = nn.Linear(64, 128), nn.Linear(128, 64)
        self.register_buffer("scale", torch.ones(()))  # something for DDP to broadcast
        self.is_recomputed = False

    def forward(self, x):
        if self.is_recomputed:
            return checkpoint(self.inside, x, use_reentrant=False)
        return self.inside(x)

    def inside(self, x):
        return self.down(nn.functional.silu(self.up(x))) * self.scale


def gradients(model, mx, x, step=0, **options):
    model.zero_grad()
    with mx.step(step, **options):
        model(x).square().mean().backward()
    whole = (p.grad for p in model.parameters())
    return [g.full_tensor() if isinstance(g, DTensor) else g.clone() for g in whole]


def is_close(one, other, tolerance=1e-5):
    pairs = zip(one, other, strict=True)
    return all((a - b).norm() <= tolerance * b.norm() for a, b in pairs)


def say(what, is_right):
    found = [None, None]
    dist.all_gather_object(found, is_right)
    if dist.get_rank() == 0:
        print(f"{what}: {'ok' if all(found) else f'wrong {found}'}", flush=True)


def data_parallel(batches, expected):
    model = Network()
    mx = convert(model, RANDOM)
    wrapped = DistributedDataParallel(model)
    keys = []
    hook = model.register_forward_hook(lambda *_: keys.append(int(mx.layers["up"].key)))
    result = gradients(wrapped, mx, batches[dist.get_rank()])
    hook.remove()
    found = [None, None]
    dist.all_gather_object(found, keys[0])
    say("DDP with its default broadcast_buffers keeps the ranks' own keys", len(set(found)) == 2)
    say("DDP averages the gradients of both ranks", is_close(result, expected))


def sharded(batches, expected):
    model = Network()
    mx = convert(model, RANDOM)
    mesh = init_device_mesh("cpu", (2,))
    for part in (model.up, model.down, model):
        fully_shard(part, mesh=mesh)
    own = batches[dist.get_rank()]
    say("FSDP2 gives the gradients of both ranks", is_close(gradients(model, mx, own), expected))
    model.is_recomputed = True
    again = gradients(model, mx, own)
    say("FSDP2 with recomputation gives the same gradients", is_close(again, expected))
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    plain = Network()
    for parameter in plain.parameters():
        nn.init.zeros_(parameter)
    is_loaded = True
    if dist.get_rank() == 0:
        plain.load_state_dict(state)
        is_loaded = all(map(torch.equal, plain.parameters(), Network().parameters()))
    say("a checkpoint of FSDP2 is loaded into a plain model", is_loaded)


def tensor_parallel(x):
    plain, model = Network(), Network()
    expected = gradients(plain, convert(plain, "F+D+W"), x)
    mx = convert(model, "F+D+W")
    plan = {"up": ColwiseParallel(), "down": RowwiseParallel()}
    parallelize_module(model, init_device_mesh("cpu", (2,)), plan)
    say("tensor parallelism gives the plain gradients", is_close(gradients(model, mx, x), expected))
    mx.set_recipe(RANDOM)
    try:
        gradients(model, mx, x)
        is_refused = False
    except ConfigError as error:
        is_refused = "DTensor" in str(error)
    say("tensor parallelism with random numbers is refused", is_refused)


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(64, 64, generator=generator) for _ in range(2)]
    alone = Network()
    mx = convert(alone, RANDOM)
    of_ranks = [gradients(alone, mx, x, rank=rank) for rank, x in enumerate(batches)]
    expected = [(a + b) / 2 for a, b in zip(*of_ranks, strict=True)]
    assert not is_close(of_ranks[0], copy.copy(of_ranks[1]), 0.1)
    data_parallel(batches, expected)
    sharded(batches, expected)
    tensor_parallel(batches[0])
    dist.destroy_process_group()
