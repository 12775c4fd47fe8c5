"""A step's metrics, which stay on the device until they are logged, and the time of its phases."""

import time
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


class PhaseTimer:
    """Adds up the time between a `start` and the next `stop`, by the name given to `stop`.

    On a CUDA device it is the device's time between two events, which only `take` waits for; else the process's clock.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_cuda = device.type == "cuda"
        self._spans: list[tuple[str, Any, Any]] = []  # two events, or two times in seconds
        self.start()

    def start(self) -> None:
        self._started = self._mark()

    def stop(self, name: str) -> None:
        self._spans.append((name, self._started, self._mark()))

    def take(self) -> dict[str, float]:
        """Seconds by name since the last `take`."""
        spans, self._spans = self._spans, []
        seconds: dict[str, float] = {}
        for name, started, stopped in spans:
            if self._on_cuda:
                stopped.synchronize()
            took = started.elapsed_time(stopped) / 1000 if self._on_cuda else stopped - started
            seconds[name] = seconds.get(name, 0.0) + took
        return seconds

    def _mark(self) -> Any:
        if not self._on_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


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
