"""A step's metrics: they stay on the device until they are logged."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fastvideo_core.distributed import context

TOTAL = "total_loss"


def phase_name(loss_map: Mapping[str, Tensor]) -> str:
    """What a phase is called in the log: after its first named loss (`student` of student_loss), else `step`."""
    named = [name.removesuffix("_loss") for name in loss_map if name != TOTAL]
    return named[0] if named else "step"


class MetricMeans:
    """The mean of each metric over a step's accumulation rounds; no value leaves its device."""

    def __init__(self) -> None:
        self._values: dict[str, list[Any]] = defaultdict(list)

    def add(self, loss_map: Mapping[str, Tensor], metrics: Mapping[str, Any]) -> None:
        """One phase's losses and metrics. `total_loss` counts only where it is the phase's one loss: a phase that names
        its losses (student_loss, critic_loss) is told by those."""
        losses = {name: loss for name, loss in loss_map.items() if name != TOTAL or len(loss_map) == 1}
        for name, value in {**losses, **metrics}.items():
            self._values[name].append(value.detach() if isinstance(value, Tensor) else value)

    def result(self) -> dict[str, Any]:
        """The means so far."""
        return {name: sum(values) / len(values) for name, values in self._values.items()}


def to_floats(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Plain numbers, averaged over all processes: one transfer from the device, whatever the number of metrics.

    A tensor [N] becomes N numbers, `name/0` to `name/N-1`. Every process must hold the same names.
    """
    tensors = [value.detach() for value in metrics.values() if isinstance(value, Tensor)]
    fetched: Iterator[float] = iter(())
    if tensors:
        together = torch.cat([value.flatten().to(context.device(), torch.float64) for value in tensors])
        if context.world_size() > 1:
            dist.all_reduce(together, op=dist.ReduceOp.SUM)
            together = together / context.world_size()
        fetched = iter(together.tolist())
    floats: dict[str, float] = {}
    for name, value in metrics.items():
        if not isinstance(value, Tensor):
            floats[name] = float(value)
        elif value.ndim == 0:
            floats[name] = next(fetched)
        else:
            floats.update({f"{name}/{index}": next(fetched) for index in range(value.numel())})
    return floats
