"""AdamW over a role's trainable parameters, with the role's own settings where it has any."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fastvideo_core.roles import RoleHandle

if TYPE_CHECKING:
    from fastvideo_core.config.run import RunConfig


def build_optimizer(
    handle: RoleHandle, cfg: RunConfig, *, like: str | None = None, learning_rate: float | None = None
) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) over `handle.trainable_parameters()`.

    Learning rate, betas and weight decay are the role's where run.yaml gives them, else training's.

    Args:
        like: the role of run.yaml whose settings count, for a role that a method makes itself; None is the role's own.
        learning_rate: instead of the settings' one.

    Raises:
        ValueError: when the role has nothing to train.
    """
    parameters = handle.trainable_parameters()
    if not parameters:
        raise ValueError(f"role '{handle.name}' has no parameter that requires a gradient")
    role, training = cfg.roles[like or handle.name], cfg.training
    if learning_rate is None:
        learning_rate = training.learning_rate if role.learning_rate is None else role.learning_rate
    return torch.optim.AdamW(
        parameters,
        lr=learning_rate,
        betas=training.betas if role.betas is None else role.betas,
        eps=training.adam_epsilon,
        weight_decay=training.weight_decay if role.weight_decay is None else role.weight_decay,
        # one kernel per step; and a step that is skipped is skipped on the device, without waiting for it
        fused=True if parameters[0].device.type == "cuda" else None,
    )
