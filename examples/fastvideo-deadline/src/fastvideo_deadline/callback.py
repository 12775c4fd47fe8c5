"""The callback `deadline`: ends a run, with a checkpoint, when its time is over."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.distributed as dist

from fastvideo_core import Callback, hookimpl
from fastvideo_core.distributed import context
from fastvideo_deadline.config import DeadlineConfig


class DeadlineCallback(Callback):
    """Counts the seconds of training over all resumes; what the time was before is in the checkpoint."""

    def __init__(self, config: DeadlineConfig) -> None:
        super().__init__(config)
        self._limit = 60 * config.minutes
        self._before = 0.0
        self._start: float | None = None

    @hookimpl
    def train_start(self) -> None:
        self._start = time.monotonic()

    @hookimpl
    def stop_requested(self, step: int) -> bool:
        # The clocks of processes differ: all take the main process's word for it.
        over = torch.tensor(float(self._seconds() > self._limit), device=context.device())
        if context.world_size() > 1:
            dist.broadcast(over, src=0)
        return bool(over)

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self._seconds()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._before = state["seconds"]

    def _seconds(self) -> float:
        return self._before + (0.0 if self._start is None else time.monotonic() - self._start)
