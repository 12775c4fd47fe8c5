"""Times steps, and tells a display where the run stands."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from fastvideo_core.tracking.display import Display, Sampling, Standing

RECENT = 30
"""Logged lines whose median is the speed by which the time left is told."""


class Progress:
    """Speed and remaining time of a run.

    Args:
        start_step: the step before the first one of this process.
        samples_per_step: samples of one step over all processes and accumulation rounds.
        asides: what steps are interrupted by, by name: every so many steps, 0 never.
    """

    def __init__(
        self, max_steps: int, start_step: int, samples_per_step: int, display: Display, asides: Mapping[str, int]
    ) -> None:
        self._max_steps = max_steps
        self._samples_per_step = samples_per_step
        self._display = display
        self._asides = asides
        self._last_step = start_step
        self._last_time = time.perf_counter()
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._took: dict[str, list[float]] = {name: [] for name in asides}
        self._unlogged: dict[str, float] = {}

    @contextmanager
    def aside(self, name: str) -> Iterator[None]:
        """Around what is no training: its time counts under its own name and not as the steps' speed."""
        started = _now()
        try:
            yield
        finally:
            seconds = _now() - started
            self._last_time += seconds
            self._took[name].append(seconds)
            self._unlogged[name] = self._unlogged.get(name, 0.0) + seconds

    def measure(self, step: int) -> dict[str, float]:
        """Since the last call: seconds per step, samples per second, and seconds of asides; peak memory in bytes."""
        now = time.perf_counter()
        seconds = (now - self._last_time) / max(1, step - self._last_step)
        self._last_time, self._last_step = now, step
        self._recent.append(seconds)
        asides, self._unlogged = self._unlogged, {}
        return {
            "seconds_per_step": seconds,
            "samples_per_second": self._samples_per_step / seconds if seconds > 0 else 0.0,
            "peak_memory_bytes": float(peak_memory_bytes()),
            **{f"seconds/{name}": value for name, value in asides.items()},
        }

    def remaining(self, step: int) -> float:
        """Seconds from `step`, whose asides are still to come, to the end; of asides, those that were seen once."""
        seconds = statistics.median(self._recent) * (self._max_steps - step) if self._recent else 0.0
        for name, every in self._asides.items():
            if every and self._took[name]:
                count = self._max_steps // every - (step - 1) // every
                seconds += statistics.median(self._took[name]) * count
        return seconds

    def validating(self, sampling: Sampling) -> None:
        self._display.validating(sampling)

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows `step`; `metrics` hold what `measure` gave, the losses and learning rates."""
        self._display.show(Standing(step, self._max_steps, metrics, self.remaining(step)))


def _now() -> float:
    """When all that was asked of the device so far is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_memory_bytes() -> int:
    """The device's peak allocation; on CPU the process's peak resident size."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
