"""Reductions over latents that every loss shares: over all dims but the first, honouring the batch's loss weights."""

from torch import Tensor


def mean_per_sample(values: Tensor, weight: Tensor | None = None) -> Tensor:
    """The mean of each sample, [B, ...] -> [B]; with `weight` (broadcastable, >= 0) sum(w v) / sum(w) per sample.

    A sample whose weights are all zero counts 0.
    """
    if weight is None:
        return values.flatten(1).mean(dim=1)
    w = weight.to(device=values.device, dtype=values.dtype).expand_as(values).flatten(1)
    total = w.sum(dim=1)
    return (w * values.flatten(1)).sum(dim=1) / total.where(total > 0, total.new_ones(()))
