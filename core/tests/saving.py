"""Managers of checkpoints with settings of their own."""

from __future__ import annotations

from dataclasses import replace

from fastvideo_core.checkpoint.manager import CheckpointManager
from fastvideo_core.config.run import RunConfig


def manager_of(
    cfg: RunConfig, *, every: int = 1, keep: int = 0, background: bool = False, skip_errors: bool = False
) -> CheckpointManager:
    settings = {
        "training_state_checkpointing_steps": every,
        "checkpoints_total_limit": keep,
        "async_checkpointing": background,
        "on_checkpoint_error": "skip" if skip_errors else "error",
    }
    return CheckpointManager(replace(cfg, training=cfg.training.model_copy(update=settings)), {"toy": "1.2"})
