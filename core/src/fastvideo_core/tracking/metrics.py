"""A step's metrics: they stay on the device until they are logged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fastvideo_core.distributed import context

TOTAL = "total_loss"


class MetricMeans:
    """The mean of each metric over a step's accumulation rounds; no value leaves its device."""

    def __init__(self) -> None:
        self._sums: dict[str, Any] = {}
        self._counts: dict[str, int] = {}

    def add(self, loss_map: Mapping[str, Tensor], metrics: Mapping[str, Any]) -> None:
        """One phase's losses and metrics. `total_loss` counts only where it is the phase's one loss: a phase that names
        its losses (student_loss, critic_loss) is told by those."""
        losses = {name: loss for name, loss in loss_map.items() if name != TOTAL or len(loss_map) == 1}
        for name, value in {**losses, **metrics}.items():
            detached = value.detach() if isinstance(value, Tensor) else value
            self._sums[name] = self._sums[name] + detached if name in self._sums else detached
            self._counts[name] = self._counts.get(name, 0) + 1

    def result(self) -> dict[str, Any]:
        """The means so far."""
        return {name: total / self._counts[name] for name, total in self._sums.items()}


def to_floats(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Plain numbers, averaged over all processes: one transfer from the device, whatever the number of metrics.

    Every process must hold the same names.
    """
    tensors = {name: value for name, value in metrics.items() if isinstance(value, Tensor)}
    values = {name: float(value) for name, value in metrics.items() if name not in tensors}
    if tensors:
        stacked = torch.stack([value.detach().to(context.device(), torch.float64) for value in tensors.values()])
        if context.world_size() > 1:
            dist.all_reduce(stacked, op=dist.ReduceOp.SUM)
            stacked = stacked / context.world_size()
        values.update(zip(tensors, stacked.tolist(), strict=True))
    return {name: values[name] for name in metrics}
