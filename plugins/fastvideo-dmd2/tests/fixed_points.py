"""Where distribution matching ends when the fake score is exact: a student x = A z + b against known data (oracle 3).

A wrong loss ends somewhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fastvideo_core.diffusion.flow import add_noise, shift_sigma
from fastvideo_dmd2.losses import dmd_gradient, dmd_loss

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def ours(x: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """The loss under test: sample x [B, D] with its graph, both scores' x0."""
    return dmd_loss(x, dmd_gradient(x, real, fake).value)


@dataclass(frozen=True)
class Mixture1D:
    """Every coordinate of the data is drawn from this mixture, independently; exact E[x0 | x_t]."""

    masses: tuple[float, ...]
    means: tuple[float, ...]
    std: float

    def x0(self, noisy: Tensor, t: Tensor) -> Tensor:
        variance = (1 - t) ** 2 * self.std**2 + t**2
        offset = noisy[..., None] - (1 - t)[..., None] * torch.tensor(self.means, dtype=noisy.dtype)
        logits = torch.tensor(self.masses, dtype=noisy.dtype).log() - offset**2 / (2 * variance[..., None])
        gain = ((1 - t) * self.std**2 / variance)[..., None]
        means = torch.tensor(self.means, dtype=noisy.dtype) + gain * offset
        return (torch.softmax(logits, dim=-1) * means).sum(-1)


def gaussian_x0(noisy: Tensor, t: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """E[x0 | x_t] of data N(mean, std^2) (oracle 1)."""
    gain = (1 - t) * std**2 / ((1 - t) ** 2 * std**2 + t**2)
    return mean + gain * (noisy - (1 - t) * mean)


def fixed_point(
    real: Mixture1D,
    *,
    loss: Loss = ours,
    dims: int = 4,
    size: int = 20_000,
    rounds: int = 160,
    rate: float = 1.0,
    shift: float = 1.0,
    graph_through_scores: bool = False,
    seed: int = 0,
) -> tuple[float, float]:
    """(A, b) to which gradient descent of a student A z + b goes, t ~ U[0.02, 0.98] before `shift`.

    Every round draws anew (antithetic in z and noise, stratified in t); the last half of the iterates is averaged, which
    leaves an error of about 1e-3. Far beyond the data counts as infinite.
    """
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    offset = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([scale, offset], lr=rate)
    iterates = []
    for _ in range(rounds):
        z, noise = antithetic(size, dims, generator), antithetic(size, dims, generator)
        u = (torch.randperm(size, generator=generator) + 0.5) / size
        t = shift_sigma(0.02 + 0.96 * u.double(), shift)[:, None]
        x = scale * z + offset
        with torch.set_grad_enabled(graph_through_scores):
            noisy = add_noise(x, noise, t)
            fake = gaussian_x0(noisy, t, offset.detach(), scale.detach())
            truth = real.x0(noisy, t)
        optimizer.zero_grad()
        loss(x, truth, fake).backward()
        optimizer.step()
        iterates.append((scale.item(), offset.item()))
        if not abs(iterates[-1][0]) + abs(iterates[-1][1]) < 1e3:
            return float("inf"), float("inf")
    late = torch.tensor(iterates[rounds // 2 :], dtype=torch.float64).mean(0)
    return late[0].item(), late[1].item()


def antithetic(size: int, dims: int, generator: torch.Generator) -> Tensor:
    """Standard normal [size, dims] whose second half mirrors the first."""
    half = torch.randn(size // 2, dims, generator=generator, dtype=torch.float64)
    return torch.cat([half, -half])
