"""Optimizers and learning-rate schedules of a role, from the run's configuration; averages of weights."""

from fastvideo_core.optim.average import move_averages
from fastvideo_core.optim.optimizer import build_lr_scheduler, build_optimizer

__all__ = ["build_lr_scheduler", "build_optimizer", "move_averages"]
