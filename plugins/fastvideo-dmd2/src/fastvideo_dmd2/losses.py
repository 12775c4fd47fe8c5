"""The distribution matching gradient as a loss (Yin et al. 2023, arXiv:2311.18828, equations 7 and 8; DMD2, arXiv:2405.14867)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastvideo_core.diffusion.flow import expand_to
from fastvideo_core.diffusion.reduce import mean_per_sample

NORMALISER_FLOOR = 1e-6


@dataclass(frozen=True)
class DMDGradient:
    """g = (x0_fake - x0_real) / normaliser, with what it was made of.

    Args:
        value: [B, ...] the gradient of the objective with respect to x.
        normaliser: [B] mean |x - x0_real| of each sample, 1e-6 at least.
        distance: [B] mean |x0_fake - x0_real| of each sample.
    """

    value: Tensor
    normaliser: Tensor
    distance: Tensor


@torch.no_grad()
def dmd_gradient(x: Tensor, x0_real: Tensor, x0_fake: Tensor, loss_weight: Tensor | None = None) -> DMDGradient:
    """The direction in which the student's sample x [B, ...] leaves the fake distribution for the real one.

    Computed in float32 at least; normalised per sample, so that samples of a batch do not scale each other. Non-finite
    scores stay non-finite: they must stop the run, not vanish.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    x, real, fake = x.to(wide), x0_real.to(wide), x0_fake.to(wide)
    difference = fake - real
    normaliser = mean_per_sample((x - real).abs(), loss_weight).clamp(min=NORMALISER_FLOOR)
    distance = mean_per_sample(difference.abs(), loss_weight)
    return DMDGradient(difference / expand_to(normaliser, x), normaliser, distance)


def dmd_loss(x: Tensor, gradient: Tensor, loss_weight: Tensor | None = None) -> Tensor:
    """0.5 * mean((x - sg(x - g))^2): a scalar whose gradient with respect to x is g / (number of elements of x).

    Args:
        x: [B, ...] the student's sample, with its graph.
        gradient: [B, ...] `DMDGradient.value`.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    x = x.to(wide)
    target = (x - gradient.to(wide)).detach()
    return 0.5 * mean_per_sample((x - target) ** 2, loss_weight).mean()


def critic_loss(
    prediction: Tensor, target: Tensor, loss_weight: Tensor | None = None, sample_weight: Tensor | float = 1.0
) -> Tensor:
    """mean((prediction - target)^2) of the critic's native output on the student's samples, in float32 at least.

    `sample_weight` [B] is a factor of each sample's own mean.
    """
    wide = torch.promote_types(prediction.dtype, torch.float32)
    return (sample_weight * mean_per_sample((prediction.to(wide) - target.to(wide)) ** 2, loss_weight)).mean()


def variation_per_sample(values: Tensor) -> Tensor:
    """How much each sample [B, ...] varies inside, along the second of its dims that vary most: [B], 0 for a solid colour.

    Along a dim it is the root of the mean variance; dims of one entry are left out. Latents of a solid colour differ
    between channels only, whichever dim those are in, so that the second dim has nothing. A sample with a single dim
    counts along that.
    """
    dims = [dim for dim in range(1, values.ndim) if values.shape[dim] > 1]
    if len(dims) < 2:
        return values.flatten(1).std(dim=1, correction=0)
    along = [values.var(dim=dim, correction=0).flatten(1).mean(dim=1).sqrt() for dim in dims]
    return torch.stack(along).sort(dim=0).values[-2]
