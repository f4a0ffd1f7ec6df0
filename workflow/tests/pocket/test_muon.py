"""Muon in float32 against torch's own, which orthogonalises in bfloat16, and against the SVD."""

import pytest
import torch

from blockwise.pocket.muon import Muon, orthogonalized


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (32, 32)])
def test_steps_are_those_of_torch_but_for_its_precision(shape):
    torch.manual_seed(0)
    own = torch.nn.Parameter(torch.randn(shape))
    other = torch.nn.Parameter(own.detach().clone())
    ours = Muon([own], lr=1e-2, weight_decay=0.1)
    theirs = torch.optim.Muon([other], lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        own.grad = torch.randn(shape)
        other.grad = own.grad.clone()
        ours.step()
        theirs.step()
    moved = (other - own).norm() / own.norm()
    assert moved < 1e-3


@pytest.mark.parametrize("shape", [(20, 50), (50, 20)])
def test_orthogonalizing_keeps_singular_vectors_and_evens_their_values(shape):
    torch.manual_seed(1)
    matrix = torch.randn(shape, dtype=torch.float64)
    u, values, vt = torch.linalg.svd(matrix, full_matrices=False)
    projected = u.T @ orthogonalized(matrix) @ vt.T
    evened = projected.diagonal()
    assert values.max() / values.min() > 3
    assert (projected - evened.diag()).abs().max() < 1e-9
    assert 0.6 < evened.min() < evened.max() < 1.3


def test_a_vector_is_refused():
    with pytest.raises(ValueError, match="give it to AdamW"):
        Muon([torch.nn.Parameter(torch.zeros(3))], lr=1e-2, weight_decay=0.0)
