"""Rectified flow: x_t = (1 - sigma) x0 + sigma * noise, velocity v = noise - x0 (Liu et al. 2022; Lipman et al. 2022).

Every function takes latents [B, ...] and sigma in [0, 1], scalar, [B], or broadcastable to the latents, and computes in
float32 at least, whatever the dtype of the inputs.
"""

import torch
from torch import Tensor


def add_noise(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """x_t from x0 and noise, in the dtype of `clean`."""
    x0, eps, s = _wide(clean, noise, sigma)
    return ((1 - s) * x0 + s * eps).to(clean.dtype)


def velocity(clean: Tensor, noise: Tensor) -> Tensor:
    """v = noise - x0, what a flow-matching network regresses; float32 at least."""
    wide = _compute_dtype(clean, noise)
    return noise.to(wide) - clean.to(wide)


def x0_from_velocity(noisy: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
    """x0 = x_t - sigma v; float32 at least."""
    x_t, wide_v, s = _wide(noisy, v, sigma)
    return x_t - s * wide_v


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance u + w (c - u); w = 1 is the conditional prediction (Ho & Salimans 2022)."""
    return unconditional + scale * (conditional - unconditional)


def shift_sigma(u: Tensor, shift: float) -> Tensor:
    """s u / (1 + (s - 1) u): moves noise levels towards 1 for s > 1 (Esser et al. 2024, equation 23)."""
    return shift * u / (1 + (shift - 1) * u)


def move_along(noisy: Tensor, x0: Tensor, level: Tensor | float, next_level: Tensor | float) -> Tensor:
    """x at another noise level of the straight line through x_t and x0, whose noise stays: x0 + (level' / level)(x_t - x0).

    An Euler step of the probability-flow ODE, and DDIM's (Song et al. 2021). In the dtype of `x0`. Levels are noise levels or
    timesteps, [B] or numbers; only their ratio counts. The first is above 0.
    """
    ratio = next_level / level
    if isinstance(ratio, Tensor):
        ratio = expand_to(ratio.to(x0.dtype), x0)
    return x0 + ratio * (noisy.to(x0.dtype) - x0)


def expand_to(values: Tensor, like: Tensor) -> Tensor:
    """[B] as [B, 1, ...] so that it broadcasts against `like` [B, ...]; other shapes are returned as they are."""
    return values.reshape(-1, *[1] * (like.ndim - 1)) if values.ndim == 1 else values


def _wide(a: Tensor, b: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    wide = _compute_dtype(a, b)
    return a.to(wide), b.to(wide), expand_to(sigma.to(device=a.device, dtype=wide), a)


def _compute_dtype(a: Tensor, b: Tensor) -> torch.dtype:
    return torch.float64 if torch.float64 in (a.dtype, b.dtype) else torch.float32
