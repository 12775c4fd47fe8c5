"""Optimizers and learning-rate schedules of a role, from the run's configuration."""

from fastvideo_core.optim.optimizer import build_optimizer
from fastvideo_core.optim.schedule import build_lr_scheduler

__all__ = ["build_lr_scheduler", "build_optimizer"]
