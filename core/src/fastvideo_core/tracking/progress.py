"""Times steps, and tells a display where the run stands."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping

import torch

from fastvideo_core.tracking.display import Display, Standing

SMOOTHING = 0.9


class Progress:
    """Speed and remaining time of a run.

    Args:
        max_steps: the run's last step.
        start_step: the step before the first one of this process.
        samples_per_step: samples of one step over all processes and accumulation rounds.
        display: who shows it.
    """

    def __init__(self, max_steps: int, start_step: int, samples_per_step: int, display: Display) -> None:
        self._max_steps = max_steps
        self._samples_per_step = samples_per_step
        self._display = display
        self._last_step = start_step
        self._last_time = time.perf_counter()
        self._smoothed: float | None = None

    def measure(self, step: int) -> dict[str, float]:
        """Speed since the last call: seconds per step, samples per second, peak memory in bytes."""
        now = time.perf_counter()
        seconds = (now - self._last_time) / max(1, step - self._last_step)
        self._last_time, self._last_step = now, step
        self._smoothed = seconds if self._smoothed is None else SMOOTHING * self._smoothed + (1 - SMOOTHING) * seconds
        return {
            "seconds_per_step": seconds,
            "samples_per_second": self._samples_per_step / seconds if seconds > 0 else 0.0,
            "peak_memory_bytes": float(peak_memory_bytes()),
        }

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows `step`; `metrics` hold what `measure` gave, the losses and learning rates."""
        remaining = (self._smoothed or 0.0) * (self._max_steps - step)
        self._display.show(Standing(step, self._max_steps, metrics, remaining))

    def close(self) -> None:
        """Nothing more is shown."""
        self._display.close()


def peak_memory_bytes() -> int:
    """The device's peak allocation; on CPU the process's peak resident size."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
