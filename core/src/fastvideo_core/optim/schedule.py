"""Learning-rate schedules as a factor of the base rate, over the number of updates that the optimizer really makes."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

if TYPE_CHECKING:
    from fastvideo_core.config.run import RunConfig


def lr_factor(
    update: int,
    *,
    schedule: str,
    total: int,
    warmup: int = 0,
    cycles: int = 1,
    power: float = 1.0,
    floor: float = 0.0,
) -> float:
    """The factor on the base learning rate before update number `update` (0-based) of `total`, in [0, 1].

    Linear warm-up over `warmup` updates, whose first has a rate above zero; then, with progress p in [0, 1]: constant 1;
    linear 1 - p; polynomial (1 - p)^power; cosine (1 + cos(pi p)) / 2, or `cycles` times the same; from 1 to `floor`.
    """
    if schedule != "constant" and update < warmup:
        return (update + 1) / (warmup + 1)
    if schedule in ("constant", "constant_with_warmup"):
        return 1.0
    progress = min(1.0, (update - warmup) / max(1, total - warmup))
    if schedule == "linear":
        shape = 1 - progress
    elif schedule == "polynomial":
        shape = (1 - progress) ** power
    elif schedule == "cosine":
        shape = 0.5 * (1 + math.cos(math.pi * progress))
    elif schedule == "cosine_with_restarts":
        shape = 0.0 if progress >= 1 else 0.5 * (1 + math.cos(math.pi * ((cycles * progress) % 1.0)))
    else:
        raise ValueError(f"unknown learning-rate schedule '{schedule}'")
    return floor + (1 - floor) * shape


def build_lr_scheduler(optimizer: Optimizer, cfg: RunConfig, role: str, *, num_updates: int) -> LambdaLR:
    """The schedule of `role`; step it once per update of `optimizer`, which makes `num_updates` over the whole run.

    A method that updates a role every k-th iteration passes max_train_steps // k; warm-up is counted in the same unit.
    """
    factor = partial(
        lr_factor,
        schedule=cfg.role_setting(role, "lr_scheduler"),
        total=num_updates,
        warmup=cfg.role_setting(role, "lr_warmup_steps"),
        cycles=cfg.training.lr_num_cycles,
        power=cfg.training.lr_power,
        floor=cfg.training.min_lr_ratio,
    )
    return LambdaLR(optimizer, factor)
