"""The optimizer of trainings of few steps."""

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from vszhdrv.zhdrv.muon import MOST_MOMENTUM, STEP, Muon, is_matrix, orthogonal


@pytest.mark.parametrize("shape", [(16, 144), (144, 16), (32, 32)])
def test_singular_values_become_about_1_and_the_vectors_stay(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    values = torch.linspace(1, 0.05, min(shape))
    found = u.T @ orthogonal(u @ torch.diag(values) @ v) @ v.T
    diagonal = found.diagonal()
    assert 0.7 < float(diagonal.min()) <= float(diagonal.max()) < 1.2
    assert float((found - diagonal.diag()).abs().max()) < 1e-3


def test_a_matrix_moves_by_a_share_of_the_rate_whatever_its_gradient() -> None:
    torch.manual_seed(0)
    moves = []
    for scale in (1e-6, 1.0):
        weight = torch.nn.Parameter(torch.zeros(32, 16, 3, 3))
        weight.grad = scale * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
        Muon([weight], lr=0.01).step()
        moves.append(weight.detach().clone())
    assert torch.allclose(*moves, atol=1e-6)
    assert float(moves[0].square().mean().sqrt()) == pytest.approx(0.01 * STEP, rel=0.2)


def test_vectors_and_single_channels_are_trained_as_by_adamw() -> None:
    start, gradients = torch.randn(8), [torch.randn(8) for _ in range(5)]
    weights = [torch.nn.Parameter(start.clone()) for _ in range(2)]
    assert not is_matrix(weights[0])
    assert not is_matrix(torch.zeros(3, 16, 1, 1))
    optimizers = Muon([weights[0]], lr=0.01), torch.optim.AdamW([weights[1]], lr=0.01, betas=(0.9, 0.99))
    for gradient in gradients:
        for weight, optimizer in zip(weights, optimizers, strict=True):
            weight.grad = gradient
            optimizer.step()
    assert torch.allclose(*weights, atol=1e-6)


def test_the_one_cycle_schedule_moves_its_rate_and_momentum() -> None:
    optimizer = Muon([torch.nn.Parameter(torch.zeros(8, 4, 3, 3))], lr=0.01)
    schedule = OneCycleLR(optimizer, 0.01, total_steps=10)
    first = dict(optimizer.param_groups[0])
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] != first["lr"]
    assert optimizer.param_groups[0]["betas"] != first["betas"]
    assert MOST_MOMENTUM < 1
