"""What a student of knowledge distillation regresses, and the regression itself."""

from __future__ import annotations

import torch
from torch import Tensor

from fastvideo_core.diffusion.flow import expand_to
from fastvideo_core.diffusion.reduce import mean_per_sample


def regression_loss(prediction: Tensor, target: Tensor, loss_weight: Tensor | None = None) -> Tensor:
    """mean((prediction - target)^2) over the samples [B, ...], in float32 at least; every noise level counts alike.

    Args:
        loss_weight: broadcastable to prediction; masks and stream weights, or None.
    """
    wide = torch.promote_types(prediction.dtype, torch.float32)
    return mean_per_sample((prediction.to(wide) - target.to(wide)) ** 2, loss_weight).mean()


def line_ends(state: Tensor, later: Tensor, sigma: Tensor, later_sigma: Tensor) -> tuple[Tensor, Tensor]:
    """The clean end and the noise end of the straight line through two states of a path, [B, ...] each.

    x_s = (1 - s) clean + s noise through (sigma, state) and (later_sigma, later): its slope is
    v = (state - later) / (sigma - later_sigma), what one step of a sampler must follow to reach `later`.

    Args:
        sigma, later_sigma: noise levels in [0, 1], [B]; the second is below the first.
    """
    level, later_level = (expand_to(value.to(state.dtype), state) for value in (sigma, later_sigma))
    slope = (state - later) / (level - later_level)
    return state - level * slope, state + (1 - level) * slope
