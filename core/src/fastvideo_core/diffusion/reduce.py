"""Reductions over latents that every loss shares: over all dims but the first, honouring the batch's loss weights."""

from __future__ import annotations

import torch
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
