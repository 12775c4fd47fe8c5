"""One line per logged step: on a terminal it is rewritten in place, in a log file lines follow each other."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from typing import TextIO

import torch

SMOOTHING = 0.9


class Progress:
    """Times steps and shows where a run stands.

    Args:
        max_steps: the run's last step.
        start_step: the step before the first one of this process.
        samples_per_step: samples of one step over all processes and accumulation rounds.
        stream: where to write; None is silent (processes that do not report).
    """

    def __init__(
        self, max_steps: int, start_step: int, samples_per_step: int, stream: TextIO | None = sys.stdout
    ) -> None:
        self._max_steps = max_steps
        self._samples_per_step = samples_per_step
        self._stream = stream
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
        """Writes the line of `step`; `metrics` hold what `measure` gave, the losses and learning rates."""
        if self._stream is None:
            return
        remaining = (self._smoothed or 0.0) * (self._max_steps - step)
        losses = [f"{name} {value:.4f}" for name, value in metrics.items() if name.endswith("loss")]
        rates = [f"lr {value:.2e}" for name, value in metrics.items() if name.startswith("lr/")]
        parts = [
            f"step {step}/{self._max_steps}",
            *losses,
            *dict.fromkeys(rates),
            f"{metrics['seconds_per_step']:.2f} s/it",
            f"{metrics['samples_per_second']:.2f} samples/s",
            f"ETA {_clock(remaining)}",
            f"mem {metrics['peak_memory_bytes'] / 2**30:.2f} GiB",
        ]
        line = " | ".join(parts)
        if self._stream.isatty():
            self._stream.write("\r\x1b[K" + line + ("\n" if step == self._max_steps else ""))
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Leaves the terminal on a fresh line when the run ends before its last step."""
        if self._stream is not None and self._stream.isatty() and self._last_step < self._max_steps:
            self._stream.write("\n")


def peak_memory_bytes() -> int:
    """The device's peak allocation; on CPU the process's peak resident size."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
