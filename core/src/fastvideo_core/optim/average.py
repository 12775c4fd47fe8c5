"""Exponential moving averages of weights that may be sharded."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


@torch.no_grad()
def move_averages(pairs: Iterable[tuple[Tensor, Tensor]], decay: float) -> None:
    """average = decay * average + (1 - decay) * weight, in the average's dtype, for each (average, weight), sharded alike."""
    averages, weights = [], []
    for average, weight in pairs:
        averages.append(_local(average))
        weights.append(_local(weight.detach()).to(average.dtype))
    torch._foreach_lerp_(averages, weights, 1 - decay)


def _local(tensor: Tensor) -> Tensor:
    """This process's shard."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
