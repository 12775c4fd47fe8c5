"""The flow-matching regression loss, and how much it counts at each noise level: apart from how often that is drawn."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastvideo_core.diffusion.reduce import mean_per_sample


def flow_matching_loss(
    prediction: Tensor, target: Tensor, level_weight: Tensor, loss_weight: Tensor | None = None
) -> Tensor:
    """mean over samples of w(sigma) * mean((prediction - target)^2), in float32 (Lipman et al. 2023, equation 14).

    Args:
        prediction, target: [B, ...].
        level_weight: [B], the weight of each sample's noise level.
        loss_weight: broadcastable to prediction; masks and stream weights, or None.
    """
    error = (prediction.float() - target.float()) ** 2
    return (level_weight.float() * mean_per_sample(error, loss_weight)).mean()


def weight_of_level(weighting: str, sigma: Tensor) -> Tensor:
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
    raise ValueError(f"unknown loss weighting '{weighting}'; allowed: none, sigma_sqrt, cosmap")
