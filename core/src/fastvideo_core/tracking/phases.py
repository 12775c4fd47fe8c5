"""Seconds per phase of a step, measured without making the host wait for the device inside the step."""

from __future__ import annotations

import time
from typing import Protocol

import torch


class PhaseTimer(Protocol):
    """Adds up the time between a `start` and the next `stop`, by the name given to `stop`."""

    def start(self) -> None: ...

    def stop(self, name: str) -> None: ...

    def take(self) -> dict[str, float]:
        """Seconds by name since the last `take`."""
        ...


def phase_timer(device: torch.device) -> PhaseTimer:
    """The timer that fits the device."""
    return CudaPhaseTimer() if device.type == "cuda" else HostPhaseTimer()


class HostPhaseTimer:
    """Wall-clock time of this process."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._started = 0.0

    def start(self) -> None:
        self._started = time.perf_counter()

    def stop(self, name: str) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - self._started

    def take(self) -> dict[str, float]:
        taken, self._seconds = self._seconds, {}
        return taken


class CudaPhaseTimer:
    """Time on the device between events; only `take` waits for it."""

    def __init__(self) -> None:
        self._spans: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self._started = _recorded_event()

    def start(self) -> None:
        self._started = _recorded_event()

    def stop(self, name: str) -> None:
        self._spans.append((name, self._started, _recorded_event()))

    def take(self) -> dict[str, float]:
        spans, self._spans = self._spans, []
        seconds: dict[str, float] = {}
        for name, started, stopped in spans:
            stopped.synchronize()
            seconds[name] = seconds.get(name, 0.0) + started.elapsed_time(stopped) / 1000
        return seconds


def _recorded_event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event
