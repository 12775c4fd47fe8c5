"""Continuous-time consistency in the velocity form (sCM, Lu & Song 2024, arXiv:2410.11081; rCM, arXiv:2510.08431).

sCM is written in angles, x = cos(a) x0 + sin(a) z, F = -dx/da. At the noise level s of x_s = (1 - s) x0 + s z the angle is
a = atan2(s, 1 - s), its states are x_s / n with n = sqrt(s^2 + (1 - s)^2), and F = ((1 - 2s) x_s + n^2 v) / n for a velocity v.
Put in, the terms in x_s cancel, and no trigonometry is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastvideo_core.diffusion.flow import expand_to
from fastvideo_core.diffusion.reduce import mean_per_sample

NORMALISER = 0.1
"""c of sCM's normalised tangent g / (|g| + c)."""


@dataclass(frozen=True)
class ConsistencyTangent:
    """g, how the consistency function should move, with what it was made of.

    Args:
        value: [B, ...] g / (|g| + c).
        norm: [B] |g| of each sample.
    """

    value: Tensor
    norm: Tensor


@torch.no_grad()
def consistency_tangent(
    velocity: Tensor,
    tangent: Tensor,
    teacher: Tensor,
    sigma: Tensor,
    *,
    warmup: float,
    loss_weight: Tensor | None = None,
) -> ConsistencyTangent:
    """sCM's tangent at x_s, normalised per sample (sCM, equation 6 and section 4.2).

    With r the warm-up, v the student's velocity, v_T the teacher's and Dv the derivative of v along the teacher's flow:
    g = (1 - s)^2 / n (v_T - v) - r s (1 - s) [(1 - 2s) / n (v_T - v) + n Dv]; at r = 1 that is (1 - s) n (v_T - v - s Dv),
    which is 0 for the consistency function, whose x - s v stays the same along the flow.

    Args:
        velocity: v, [B, ...].
        tangent: Dv along (dx, ds) = (v_T, 1), per unit of sigma, [B, ...].
        teacher: v_T, guided, [B, ...].
        sigma: s in (0, 1), [B].
        warmup: r in [0, 1].
        loss_weight: elements whose weight is 0 count nothing in |g|.
    """
    wide = torch.promote_types(velocity.dtype, torch.float32)
    v, dv, v_teacher = velocity.to(wide), tangent.to(wide), teacher.to(wide)
    s = expand_to(sigma.to(v.device, wide), v)
    n = _length(s)
    towards = v_teacher - v
    g = (1 - s) ** 2 / n * towards - warmup * s * (1 - s) * ((1 - 2 * s) / n * towards + n * dv)
    counted = g if loss_weight is None else g * (loss_weight != 0)
    norm = counted.flatten(1).norm(dim=1)
    return ConsistencyTangent(g / (expand_to(norm, g) + NORMALISER), norm)


def consistency_loss(
    velocity: Tensor, tangent: ConsistencyTangent, sigma: Tensor, loss_weight: Tensor | None = None
) -> Tensor:
    """0.5 mean((F - sg(F) - g)^2) = 0.5 mean(n^2 (v - sg(v) - g / n)^2), whose gradient in v is -n g / (elements of v).

    Args:
        velocity: v [B, ...], with its graph.
        tangent: of the same v.
        sigma: s, [B].
    """
    wide = torch.promote_types(velocity.dtype, torch.float32)
    v = velocity.to(wide)
    n = _length(expand_to(sigma.to(v.device, wide), v))
    target = (v + tangent.value.to(wide) / n).detach()
    return 0.5 * mean_per_sample(n**2 * (v - target) ** 2, loss_weight).mean()


def _length(s: Tensor) -> Tensor:
    """n, the length of (s, 1 - s): x_s / n has the variance of sCM's states."""
    return (s**2 + (1 - s) ** 2).sqrt()
