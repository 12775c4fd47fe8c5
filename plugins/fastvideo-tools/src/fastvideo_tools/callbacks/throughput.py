"""How fast a run is, and what it takes of the device's memory."""

from __future__ import annotations

import statistics
import time
from collections import deque
from typing import Any

import torch

from fastvideo_core.callbacks.hooks import Callback, hookimpl
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.distributed import context
from fastvideo_tools.callbacks.config import ThroughputConfig

GIB = float(2**30)


class ThroughputCallback(Callback):
    """Puts `throughput/*` into the metrics, and on a GPU `memory/*` (GiB of this process's device).

    The time of a step is the median over the last `window` steps, so that a checkpoint or a slow batch does not count;
    validation is left out altogether. Nothing waits for the device: single steps may be off, their median is not.
    """

    order = 900  # late: what other callbacks take belongs to the step

    def __init__(self, config: ThroughputConfig) -> None:
        super().__init__(config)
        self._every = config.every
        self._seconds: deque[float] = deque(maxlen=config.window)
        self._mark: float | None = None
        self._paused = 0.0
        self._validates: float | None = None  # since when

    @hookimpl
    def validation_start(self) -> None:
        self._validates = time.perf_counter()

    @hookimpl
    def validation_end(self) -> None:
        if self._validates is not None:  # another callback's start may have failed before this one's
            self._paused += time.perf_counter() - self._validates
            self._validates = None

    @hookimpl
    def step_end(self, method: DistillMethod, step: int, metrics: dict[str, Any]) -> None:
        now, before = time.perf_counter(), self._mark
        if before is not None:  # the first step of a process warms up
            self._seconds.append(now - before - self._paused)
        self._mark, self._paused = now, 0.0
        if step % self._every or not self._seconds:
            return
        seconds = statistics.median(self._seconds)
        training = method.cfg.training
        samples = training.train_batch_size * training.gradient_accumulation_steps * method.mesh.data_size
        metrics["throughput/seconds_per_step"] = seconds
        metrics["throughput/samples_per_second_per_process"] = samples / context.world_size() / seconds
        metrics["throughput/samples_per_second"] = samples / seconds
        if torch.cuda.is_available():
            device = context.device()
            metrics["memory/allocated_gib"] = torch.cuda.memory_allocated(device) / GIB
            metrics["memory/reserved_gib"] = torch.cuda.memory_reserved(device) / GIB
            metrics["memory/peak_gib"] = torch.cuda.max_memory_allocated(device) / GIB
