"""How far the student is from its target (Song et al. 2023, arXiv:2303.01469, equation 7)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fastvideo_core.diffusion.reduce import mean_per_sample


def consistency_loss(
    x0: Tensor,
    target: Tensor,
    *,
    kind: Literal["squared", "pseudo_huber"] = "squared",
    huber_constant: float = 0.00054,
    loss_weight: Tensor | None = None,
) -> Tensor:
    """The mean over samples of m, or of sqrt(m + c^2) - c, where m is a sample's mean of (x0 - sg(target))^2; a scalar.

    In float32 at least. The second is the pseudo-Huber loss sqrt(|d|^2 + c^2 D) - c sqrt(D) of a sample of D elements (Song &
    Dhariwal 2023, arXiv:2310.14189, section 3.3, where c is 0.00054), divided by sqrt(D), so that the size of a video does
    not scale it.

    Args:
        x0: [B, ...] the student's estimate, with its graph.
        target: [B, ...] what it is compared with; no gradient goes there.
        huber_constant: c, in the unit of an element.
        loss_weight: broadcastable to x0; masks and stream weights, or None.
    """
    wide = torch.promote_types(x0.dtype, torch.float32)
    squares = (x0.to(wide) - target.detach().to(wide)) ** 2
    means = mean_per_sample(squares, loss_weight)
    if kind == "squared":
        return means.mean()
    return ((means + huber_constant**2).sqrt() - huber_constant).mean()
