"""Samples at a noise level above 0: noised further, and what a network regresses there (Phased DMD, arXiv:2510.27684).

Latents are [B, ...], `level` is s in [0, 1), `sigma` is t above it: scalar, [B], or broadcastable to the latents. From level 0
it is ordinary flow matching. All is computed in float32 at least.
"""

import torch
from torch import Tensor

from fastvideo_core.diffusion.flow import expand_to


def add_noise_from_level(noisy: Tensor, noise: Tensor, level: float, sigma: Tensor) -> Tensor:
    """x_t from x_s, in the dtype of `noisy`: a x_s + b e with a = (1 - t) / (1 - s) and b = sqrt(t^2 - a^2 s^2).

    It is x0 noised to t, where x_s is x0 noised to s.
    """
    x_s, e, a, b = _wide(noisy, noise, *_factors(level, sigma))
    return (a * x_s + b * e).to(noisy.dtype)


def pair_from_level(noisy: Tensor, noise: Tensor, level: float, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What stands for x0 and noise of x_t = `add_noise_from_level` in the target of a prediction, and the target's weight.

    (x_s - a s^2 / b e) / (1 - s) and t / b e: given x_t their means are those of x0 and of its noise, so that their difference
    (t e / b - x_t) / (1 - t) regresses to the velocity, which e - x_s does not. As t falls to s its variance has no bound: the
    weight, in sigma's shape, is 1 over that which e brings. From level 0 they are x_s, e and 1.
    """
    a, b = _factors(level, sigma)
    of_clean, of_noise = a * level**2 / b, sigma.double() / b
    x_s, e, in_clean, in_noise = _wide(noisy, noise, of_clean, of_noise)
    weight = (of_noise + of_clean / (1 - level)) ** -2
    return (x_s - in_clean * e) / (1 - level), in_noise * e, weight.to(x_s.dtype)


def _factors(level: float, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """a and b."""
    t = sigma.double()
    a = (1 - t) / (1 - level)
    return a, (t**2 - (a * level) ** 2).clamp(min=1e-12).sqrt()  # above 0 where t is s


def _wide(noisy: Tensor, noise: Tensor, *factors: Tensor) -> tuple[Tensor, ...]:
    wide = torch.promote_types(torch.promote_types(noisy.dtype, noise.dtype), torch.float32)
    per_sample = (expand_to(factor.to(device=noisy.device, dtype=wide), noisy) for factor in factors)
    return noisy.to(wide), noise.to(wide), *per_sample
