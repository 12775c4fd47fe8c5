"""Seconds per phase of a step, measured without making the host wait for the device inside the step."""

from __future__ import annotations

import time
from typing import Any

import torch


class PhaseTimer:
    """Adds up the time between a `start` and the next `stop`, by the name given to `stop`.

    On a CUDA device it is the device's time between two events, which only `take` waits for; else the process's clock.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_cuda = device.type == "cuda"
        self._spans: list[tuple[str, Any, Any]] = []  # two events, or two times in seconds
        self._started = self._now()

    def start(self) -> None:
        self._started = self._now()

    def stop(self, name: str) -> None:
        self._spans.append((name, self._started, self._now()))

    def take(self) -> dict[str, float]:
        """Seconds by name since the last `take`."""
        spans, self._spans = self._spans, []
        seconds: dict[str, float] = {}
        for name, started, stopped in spans:
            seconds[name] = seconds.get(name, 0.0) + self._seconds(started, stopped)
        return seconds

    def _now(self) -> Any:
        if not self._on_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _seconds(self, started: Any, stopped: Any) -> float:
        if not self._on_cuda:
            return float(stopped - started)
        stopped.synchronize()
        return float(started.elapsed_time(stopped)) / 1000
