"""Where on the noise axis a training step looks, and how much it counts there: two separate choices."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SAMPLINGS = ("uniform", "logit_normal", "mode")
WEIGHTINGS = ("none", "sigma_sqrt", "cosmap")


def sample_uniform(size: int, generator: torch.Generator) -> Tensor:
    """u ~ U[0, 1), [B] float32."""
    return torch.rand(size, generator=generator, device=generator.device)


def sample_logit_normal(size: int, generator: torch.Generator, *, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """u = sigmoid(mean + std z), z ~ N(0, 1), [B] (Esser et al. 2024, equation 19)."""
    return torch.sigmoid(mean + std * torch.randn(size, generator=generator, device=generator.device))


def sample_mode(size: int, generator: torch.Generator, *, scale: float = 1.29) -> Tensor:
    """u = 1 - r - scale (cos^2(pi r / 2) - 1 + r), r ~ U[0, 1), [B] (Esser et al. 2024, equation 20).

    `scale` in [-1, 2 / (pi - 2)]: there the map is monotone, so that u stays in [0, 1].
    """
    r = torch.rand(size, generator=generator, device=generator.device)
    return 1 - r - scale * (torch.cos(math.pi * r / 2) ** 2 - 1 + r)


def sample_u(
    sampling: str,
    size: int,
    generator: torch.Generator,
    *,
    logit_mean: float = 0.0,
    logit_std: float = 1.0,
    mode_scale: float = 1.29,
) -> Tensor:
    """Unshifted noise levels u in [0, 1], [B], by the name of the distribution (one of SAMPLINGS)."""
    if sampling == "uniform":
        return sample_uniform(size, generator)
    if sampling == "logit_normal":
        return sample_logit_normal(size, generator, mean=logit_mean, std=logit_std)
    if sampling == "mode":
        return sample_mode(size, generator, scale=mode_scale)
    raise ValueError(f"unknown timestep sampling '{sampling}'; allowed: {', '.join(SAMPLINGS)}")


def loss_weight(weighting: str, sigma: Tensor) -> Tensor:
    """The weight of each sample's loss at noise level sigma in [0, 1], same shape (Esser et al. 2024, section 3.1).

    `none`: 1; `sigma_sqrt`: sigma^-2, sigma held at 1e-3 at least so that it stays finite; `cosmap`:
    2 / (pi (1 - 2 sigma + 2 sigma^2)).
    """
    if weighting == "none":
        return torch.ones_like(sigma)
    if weighting == "sigma_sqrt":
        return sigma.clamp(min=1e-3) ** -2.0
    if weighting == "cosmap":
        return 2 / (math.pi * (1 - 2 * sigma + 2 * sigma**2))
    raise ValueError(f"unknown loss weighting '{weighting}'; allowed: {', '.join(WEIGHTINGS)}")
