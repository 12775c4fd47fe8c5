"""The flow-matching regression loss."""

from __future__ import annotations

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
