"""A role's optimizer and its learning-rate schedule, with the role's own settings where it has any."""

import math
from importlib import import_module
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_core.optim.muon import Muon


def build_optimizer(
    handle: RoleHandle, cfg: RunConfig, *, like: str | None = None, learning_rate: float | None = None
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019), Muon or bitsandbytes' 8-bit AdamW, as training.optimizer says, over what is trained.

    Learning rate, betas and weight decay are those of the role `like` of run.yaml, by default its own, where it gives
    them, else training's; `learning_rate` replaces the first. A role that a method makes itself has no settings. Raises
    ValueError for a role with nothing to train, ConfigError for Muon where a role of run.yaml has no trained matrices.
    """
    parameters = handle.trainable_parameters()
    if not parameters:
        raise ValueError(f"role '{handle.name}' has no parameter that requires a gradient")
    role, muon = like or handle.name, cfg.training.optimizer == "muon"
    settings: dict[str, Any] = {
        "lr": cfg.role_setting(role, "learning_rate") if learning_rate is None else learning_rate,
        "betas": cfg.role_setting(role, "betas"),
        "eps": cfg.training.adam_epsilon,
        "weight_decay": cfg.role_setting(role, "weight_decay"),
    }
    matrices = _matrices(handle) if muon else []
    if muon and handle.name in cfg.roles and not matrices:
        found = f"muon, but the blocks of role '{handle.name}' have no matrices that are trained"
        raise ConfigError(Problem(found, "training.optimizer", fix="use adamw"))
    if matrices:
        chosen = {id(parameter) for parameter in matrices}
        return Muon(matrices, [parameter for parameter in parameters if id(parameter) not in chosen], **settings)
    if cfg.training.optimizer == "adamw8bit":
        of_bytes: torch.optim.Optimizer = import_module("bitsandbytes.optim").AdamW8bit(parameters, **settings)
        return of_bytes
    on_gpu = any(parameter.is_cuda for parameter in parameters)
    return torch.optim.AdamW(parameters, **settings, fused=on_gpu or None)  # one kernel per step


def _matrices(handle: RoleHandle) -> list[nn.Parameter]:
    """The trained matrices of the role's blocks; what embeds and projects around them is not Muon's."""
    parts = (part for module in handle.modules.values() for part in module.modules())
    blocks = (part for part in parts if type(part) in handle.block_classes)
    own = set(map(id, handle.trainable_parameters()))
    return [p for block in blocks for p in block.parameters() if id(p) in own and p.ndim == 2]


def build_lr_scheduler(optimizer: torch.optim.Optimizer, cfg: RunConfig, role: str, *, num_updates: int) -> LambdaLR:
    """The schedule of `role`; step it once per update of `optimizer`, which makes `num_updates` over the whole run.

    Linear warm-up, whose first update has a rate above zero; then, with progress p in [0, 1]: constant 1; linear 1 - p;
    polynomial (1 - p)^power; cosine (1 + cos(pi p)) / 2, or `lr_num_cycles` times the same; from 1 down to `min_lr_ratio`.
    A method that updates a role every k-th iteration passes max_train_steps // k; warm-up is counted in the same unit.
    """
    training, floor = cfg.training, cfg.training.min_lr_ratio
    schedule: str = cfg.role_setting(role, "lr_scheduler")
    warmup: int = cfg.role_setting(role, "lr_warmup_steps")

    def factor(update: int) -> float:
        """Before update number `update`, from 0."""
        if schedule != "constant" and update < warmup:
            return (update + 1) / (warmup + 1)
        if schedule in ("constant", "constant_with_warmup"):
            return 1.0
        progress = min(1.0, (update - warmup) / max(1, num_updates - warmup))
        if schedule == "linear":
            shape = 1 - progress
        elif schedule == "polynomial":
            shape = float((1 - progress) ** training.lr_power)
        elif schedule == "cosine":
            shape = 0.5 * (1 + math.cos(math.pi * progress))
        else:  # cosine_with_restarts
            cycle = (training.lr_num_cycles * progress) % 1.0
            shape = 0.0 if progress >= 1 else 0.5 * (1 + math.cos(math.pi * cycle))
        return floor + (1 - floor) * shape

    return LambdaLR(optimizer, factor)
