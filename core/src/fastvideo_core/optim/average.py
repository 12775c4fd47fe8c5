"""Exponential moving averages of weights that may be sharded."""

from collections.abc import Iterable

import torch
from torch import Tensor

from fastvideo_core.weights.parameters import local_part


@torch.no_grad()
def move_averages(pairs: Iterable[tuple[Tensor, Tensor]], decay: float) -> None:
    """average = decay * average + (1 - decay) * weight, in the average's dtype, for each (average, weight), sharded alike."""
    averages, weights = [], []
    for average, weight in pairs:
        averages.append(local_part(average))
        weights.append(local_part(weight.detach()).to(average.dtype))
    torch._foreach_lerp_(averages, weights, 1 - decay)
