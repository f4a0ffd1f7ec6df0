"""A DTensor is quantized like a tensor: torch's shift operators do nothing to one."""

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from blockwise.config.recipes import Operand, ScaleRule
from blockwise.mxfp4.quantize import fake_quantize


@pytest.fixture
def mesh(tmp_path):
    """A mesh of this process alone."""
    rendezvous = f"file://{tmp_path / 'rendezvous'}"
    dist.init_process_group("gloo", init_method=rendezvous, rank=0, world_size=1)
    try:
        yield init_device_mesh("cpu", (1,))
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("rule", ScaleRule)
@pytest.mark.parametrize("placement", [Replicate(), Shard(0), Shard(1)], ids=str)
def test_a_dtensor_is_quantized(mesh, rule, placement):
    values = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    for axis in (0, 1):
        operand = Operand(scale_rule=rule)
        result = fake_quantize(distribute_tensor(values, mesh, [placement]), axis, operand)
        expected = fake_quantize(values, axis, operand)
        assert expected.count_nonzero() > values.numel() / 2
        assert torch.equal(result.full_tensor(), expected)
