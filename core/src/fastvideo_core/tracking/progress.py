"""How fast a run goes: the time of its phases and interruptions, and how long it still takes."""

import resource
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from fastvideo_core.launch.stdio import Attempts
from fastvideo_core.tracking.display import Display, LoggedStep, Sampling

RECENT = 30  # logged lines, whose median is the speed by which the time left is told


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
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # untyped in torch
        event.record()
        return event


class Progress:
    """Speed and remaining time of a run whose next step is `start_step` + 1.

    `samples_per_step` are of all processes and rounds; `interruptions`, by name, come every so many steps, 0 never. A
    `display` that fails (a full disk, a reader that has gone) does not end the run.
    """

    def __init__(
        self, max_steps: int, start_step: int, samples_per_step: int, display: Display, interruptions: Mapping[str, int]
    ) -> None:
        self._max_steps = max_steps
        self._samples_per_step = samples_per_step
        self._display = display
        self._attempt = partial(Attempts(), "the run's steps cannot be shown")
        self._interruptions = interruptions
        self._last_step = start_step
        self._last_time = time.perf_counter()
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._took: dict[str, list[float]] = {name: [] for name in interruptions}
        self._unlogged: dict[str, float] = {}

    @contextmanager
    def interruption(self, name: str) -> Iterator[None]:
        """Around what is no training: its time counts under its own name and not as the steps' speed."""
        started = _device_time()
        try:
            yield
        finally:
            seconds = _device_time() - started
            self._last_time += seconds
            self._took[name].append(seconds)
            self._unlogged[name] = self._unlogged.get(name, 0.0) + seconds

    def measure(self, step: int) -> dict[str, float]:
        """Since the last call: seconds per step, samples per second, and seconds of interruptions; peak memory in bytes."""
        now = time.perf_counter()
        seconds = (now - self._last_time) / max(1, step - self._last_step)
        self._last_time, self._last_step = now, step
        self._recent.append(seconds)
        interruptions, self._unlogged = self._unlogged, {}
        return {
            "seconds_per_step": seconds,
            "samples_per_second": self._samples_per_step / seconds if seconds > 0 else 0.0,
            "peak_memory_bytes": float(peak_memory_bytes()),
            **{f"seconds/{name}": value for name, value in interruptions.items()},
        }

    def validating(self, sampling: Sampling) -> None:
        self._attempt(self._display.validating, sampling)

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows `step`, whose interruptions are still to come; `metrics` hold what `measure` gave, losses and learning rates."""
        remaining = statistics.median(self._recent) * (self._max_steps - step)
        for name, every in self._interruptions.items():
            if every and self._took[name]:
                remaining += statistics.median(self._took[name]) * (self._max_steps // every - (step - 1) // every)
        self._attempt(self._display.show, LoggedStep(step, self._max_steps, metrics, remaining))


def _device_time() -> float:
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
