"""Where on the noise axis a training step looks: distributions of timesteps."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

UNSHIFTED_SAMPLINGS = ("uniform", "logit_normal", "mode")
"""Distributions of u, before the family's shift."""

SHIFTED_LOGIT_NORMAL = "shifted_logit_normal"
SAMPLINGS = (*UNSHIFTED_SAMPLINGS, SHIFTED_LOGIT_NORMAL)

QUANTILE_005, QUANTILE_999 = -2.5758, 3.0902
"""Of the standard normal distribution, at 0.5 % and 99.9 %: what the stretched logit-normal maps to 0 and to 1."""

LOW = 1e-3
"""Stretched levels below it are mirrored at it."""


def sample_u(
    sampling: str,
    size: int,
    generator: torch.Generator,
    *,
    logit_mean: float = 0.0,
    logit_std: float = 1.0,
    mode_scale: float = 1.29,
) -> Tensor:
    """Unshifted noise levels u in [0, 1], [B] float32, by the name of the distribution (Esser et al. 2024, section 3.1).

    `uniform`: U[0, 1); `logit_normal`: sigmoid(mean + std z), z ~ N(0, 1) (equation 19); `mode`, with r ~ U[0, 1):
    1 - r - scale (cos^2(pi r / 2) - 1 + r) (equation 20), monotone and so in [0, 1] for scale in [-1, 2 / (pi - 2)].
    """
    if sampling == "logit_normal":
        z = torch.randn(size, generator=generator, device=generator.device)
        return torch.sigmoid(logit_mean + logit_std * z)
    r = torch.rand(size, generator=generator, device=generator.device)
    if sampling == "uniform":
        return r
    if sampling == "mode":
        return 1 - r - mode_scale * (torch.cos(math.pi * r / 2) ** 2 - 1 + r)
    raise ValueError(f"unknown timestep sampling '{sampling}'; allowed: {', '.join(UNSHIFTED_SAMPLINGS)}")


def sample_shifted_logit_normal(
    size: int,
    generator: torch.Generator,
    *,
    shift: Callable[[Tensor], Tensor],
    mean: float = 0.0,
    std: float = 1.0,
    uniform_fraction: float = 0.1,
) -> Tensor:
    """Noise levels in [0, 1], [B]: a logit-normal that is first shifted (u in [0, 1], same shape) and then stretched.

    With the shift s u / (1 + (s - 1) u) the levels are sigmoid(mean + log s + std z) before they are stretched, so that
    their 0.5 % quantile becomes 0 and their 99.9 % quantile 1. What falls below LOW after that is mirrored at it, the rest is
    clamped. A sample is uniform in [LOW, 1] with probability `uniform_fraction` instead, so that every level is trained.
    """
    z = torch.randn(size, generator=generator, device=generator.device)
    drawn = shift(torch.sigmoid(mean + std * z))
    bounds = torch.tensor([QUANTILE_005, QUANTILE_999], dtype=torch.float64)
    low, high = shift(torch.sigmoid(mean + std * bounds)).tolist()
    stretched = (drawn - low) / (high - low)
    stretched = torch.where(stretched < LOW, 2 * LOW - stretched, stretched).clamp(0, 1)
    is_uniform = torch.rand(size, generator=generator, device=generator.device) < uniform_fraction
    uniform = LOW + (1 - LOW) * torch.rand(size, generator=generator, device=generator.device)
    return torch.where(is_uniform, uniform, stretched)


def sample_timesteps(
    sampling: str,
    size: int,
    generator: torch.Generator,
    *,
    shift: Callable[[Tensor], Tensor],
    num_train_timesteps: int,
    logit_mean: float = 0.0,
    logit_std: float = 1.0,
    mode_scale: float = 1.29,
) -> Tensor:
    """Shifted timesteps [B] by the name of the distribution (one of SAMPLINGS); `shift` is `shift_and_clamp_timestep`."""
    if sampling == SHIFTED_LOGIT_NORMAL:

        def shifted(u: Tensor) -> Tensor:
            return shift(u * num_train_timesteps) / num_train_timesteps

        levels = sample_shifted_logit_normal(size, generator, shift=shifted, mean=logit_mean, std=logit_std)
        return levels * num_train_timesteps
    u = sample_u(sampling, size, generator, logit_mean=logit_mean, logit_std=logit_std, mode_scale=mode_scale)
    return shift(u * num_train_timesteps)


def timestep_fractions(t: Tensor, num_train_timesteps: int, bins: int = 10) -> Tensor:
    """The fraction of timesteps [B] in each of `bins` equal parts of the noise axis, [bins]: a histogram for the log."""
    part = (t.float() * bins / num_train_timesteps).long().clamp(0, bins - 1)
    return (part.flatten()[:, None] == torch.arange(bins, device=t.device)).float().mean(dim=0)
