from __future__ import annotations

import pytest
import torch
from torch import nn

from fastvideo_core.optim.muon import Muon, orthogonal


def layers(seed: int = 0) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    generator = torch.Generator().manual_seed(seed)
    matrices = [nn.Parameter(torch.randn(*shape, generator=generator)) for shape in ((4, 6), (6, 4), (4, 6))]
    return matrices, [nn.Parameter(torch.randn(5, generator=generator))]


def made(matrices: list[nn.Parameter], others: list[nn.Parameter], **options: float) -> Muon:
    return Muon(matrices, others, **{"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.0, **options})


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 6, 20), (2, 20, 6)])
def test_singular_values_come_near_1_and_their_vectors_stay(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    found = left.mT @ orthogonal(matrices) @ right.mT
    values = found.diagonal(dim1=-2, dim2=-1)
    assert values.min() > 0.5
    assert values.max() < 1.3
    assert (found - torch.diag_embed(values)).abs().max() < 1e-3


def test_a_zero_gradient_moves_nothing():
    assert orthogonal(torch.zeros(1, 3, 3)).abs().max() == 0


def test_a_matrix_moves_by_the_same_amount_whatever_the_size_of_its_gradient():
    moves = []
    for size in (1e-3, 1e3):
        matrices, others = layers()
        before = [p.detach().clone() for p in matrices]
        for parameter in [*matrices, *others]:
            parameter.grad = size * torch.ones_like(parameter).cumsum(0)
        made(matrices, others).step()
        moves.append([p.detach() - b for p, b in zip(matrices, before, strict=True)])
    for small, large in zip(*moves, strict=True):
        torch.testing.assert_close(small, large)


def test_the_update_of_a_gradient_of_low_rank_stays_in_its_range_which_torch_s_muon_leaves():
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(24, 2, generator=generator) @ torch.randn(2, 32, generator=generator)
    basis = torch.linalg.svd(gradient)[0][:, :2]
    outside = []
    for kind in ("ours", "torch's"):
        weight = nn.Parameter(torch.zeros(24, 32))
        weight.grad = gradient.clone()
        (made([weight], []) if kind == "ours" else torch.optim.Muon([weight], weight_decay=0.0)).step()
        moved = weight.detach()
        outside.append(((moved - basis @ basis.T @ moved).norm() / moved.norm()).item())
    assert outside[0] < 1e-3
    assert outside[1] > 0.3  # else ours has no reason to be


def test_what_is_no_matrix_is_updated_as_adamw_does():
    matrices, others = layers()
    reference = nn.Parameter(others[0].detach().clone())
    muon = made(matrices, others, weight_decay=0.01)
    adamw = torch.optim.AdamW([reference], lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.01)
    for step in range(3):
        others[0].grad = reference.grad = torch.full((5,), 1.0 + step)
        muon.step()
        adamw.step()
    torch.testing.assert_close(others[0], reference)


def test_parameters_without_a_gradient_stay():
    matrices, others = layers()
    before = [p.detach().clone() for p in [*matrices, *others]]
    optimizer = made(matrices, others)
    optimizer.step()
    assert all(torch.equal(p, b) for p, b in zip([*matrices, *others], before, strict=True))
    assert not optimizer.state


def test_it_finds_a_linear_map():
    generator = torch.Generator().manual_seed(0)
    wanted, weight = torch.randn(6, 6, generator=generator), nn.Parameter(torch.zeros(6, 6))
    optimizer = made([weight], [], lr=0.3)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.3 * (1 - step / 300)
        x = torch.randn(64, 6, generator=generator)
        optimizer.zero_grad()
        (x @ (weight - wanted)).square().mean().backward()
        optimizer.step()
    assert (weight - wanted).abs().max() < 0.02
