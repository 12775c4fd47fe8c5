"""Ends a run when a metric has stopped getting better."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fastvideo_core.callbacks.hooks import Callback, hookimpl
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.distributed import context
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_tools.callbacks.config import EarlyStopConfig

logger = logging.getLogger(__name__)


class EarlyStopCallback(Callback):
    """Ends the run, with a checkpoint and without an error, after `patience` looks without an improvement.

    Every `every` steps it looks at the mean of the metric over the steps since it looked last, and over all processes,
    so that all of them decide alike. A value that is not finite is no improvement.
    """

    order = 500  # after the callbacks that add metrics

    def __init__(self, config: EarlyStopConfig) -> None:
        super().__init__(config)
        self._config = config
        self._sum: Any = 0.0
        self._count = 0
        self._best: float | None = None
        self._without = 0
        self._looked = False

    @hookimpl
    def step_end(self, method: DistillMethod, step: int, metrics: dict[str, Any]) -> None:
        name = self._config.metric
        if name in metrics:
            value = metrics[name]
            self._sum = self._sum + (value.detach() if isinstance(value, Tensor) else float(value))
            self._count += 1
        elif not self._looked and context.is_main_process():
            until = step + -step % self._config.every
            text = "callbacks.early_stop.metric: there is no '%s' in step %d (it has %s); without one the run ends after step %d"
            logger.warning(text, name, step, ", ".join(sorted(metrics)), until)
        self._looked = True
        if step % self._config.every:
            return
        if not self._count:
            raise ConfigError(
                Problem(
                    found=f"there is no metric '{name}' in the steps up to {step}",
                    where="callbacks.early_stop.metric",
                    allowed=", ".join(sorted(metrics)),
                )
            )
        value = _mean_over_processes(self._sum / self._count)
        self._sum, self._count = 0.0, 0
        if step <= self._config.start_step:
            return
        if self._improves(value):
            self._best, self._without = value, 0
        else:
            self._without += 1
        if self._stops():
            best = "none" if self._best is None else f"{self._best:.6g}"
            text = "early stop after step %d: %s is %.6g, and was not better than %s for %d looks"
            logger.info(text, step, name, value, best, self._without)

    @hookimpl
    def stop_requested(self, step: int) -> bool:
        return self._stops()

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, looks without a better one, and what was added up since the last look. Collective."""
        total = _mean_over_processes(self._sum)
        return {"best": self._best, "without": self._without, "sum": total, "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._best, self._without = state["best"], state["without"]
        self._sum, self._count = state["sum"], state["count"]

    def _stops(self) -> bool:
        return self._without >= self._config.patience

    def _improves(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self._best is None:
            return True
        gain = self._best - value if self._config.mode == "min" else value - self._best
        return gain > self._config.min_delta


def _mean_over_processes(value: Any) -> float:
    mean = torch.as_tensor(value, dtype=torch.float64, device=context.device()).clone()
    if context.world_size() > 1:
        dist.all_reduce(mean)
        mean /= context.world_size()
    return float(mean)
