"""How much memory a run takes, from configurations alone: weights, gradients, optimizer, EMA; not activations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from fastvideo_core.config.run import RunConfig

FULL, HALF = 4, 2
"""Bytes of a float32 and of a bfloat16 number."""

ADAMW_MOMENTS = 2


@dataclass(frozen=True)
class RoleEstimate:
    """What one role takes, in bytes over all processes.

    Args:
        parameters: how many numbers its networks hold.
        weights, gradients, optimizer, ema: bytes.
    """

    parameters: int
    weights: int
    gradients: int
    optimizer: int
    ema: int

    @property
    def total(self) -> int:
        """Bytes of everything."""
        return self.weights + self.gradients + self.optimizer + self.ema

    @property
    def checkpoint(self) -> int:
        """Bytes in a checkpoint: trained weights, moments and averages."""
        return (self.weights + self.optimizer + self.ema) if self.optimizer else 0


def estimate_role(cfg: RunConfig, name: str, modules: Mapping[str, nn.Module], *, ema: bool) -> RoleEstimate:
    """The estimate of one role, from its networks on the meta device.

    Args:
        ema: whether a callback averages this role's weights.
    """
    parameters = sum(parameter.numel() for module in modules.values() for parameter in module.parameters())
    trainable = cfg.roles[name].trainable
    in_half = cfg.training.mixed_precision == "bf16" and not trainable
    return RoleEstimate(
        parameters=parameters,
        weights=parameters * (HALF if in_half else FULL),
        gradients=parameters * FULL if trainable else 0,
        optimizer=parameters * FULL * ADAMW_MOMENTS if trainable else 0,
        ema=parameters * FULL if ema and trainable else 0,
    )
