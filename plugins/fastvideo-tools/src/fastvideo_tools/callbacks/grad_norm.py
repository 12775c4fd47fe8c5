"""Gradient norms per role."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from fastvideo_core.callbacks.hooks import Callback, hookimpl
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_tools.callbacks.config import GradNormConfig


class GradNormCallback(Callback):
    """Puts `grad_norm/<role>` into the metrics: the 2-norm over all gradients of the role, before clipping.

    The value is a 0-dim tensor on the device, so that nothing waits for it here.
    """

    def __init__(self, config: GradNormConfig) -> None:
        super().__init__(config)
        self._every = config.every

    @hookimpl
    def before_optimizer_step(
        self, method: DistillMethod, step: int, optimizers: Sequence[Optimizer], metrics: dict[str, Any]
    ) -> None:
        if step % self._every:
            return
        stepped = {id(optimizer) for optimizer in optimizers}
        for handle in method.bundle:
            if not any(id(optimizer) in stepped for optimizer in handle.optimizers.values()):
                continue
            gradients = [p.grad for p in handle.trainable_parameters() if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            metrics[f"grad_norm/{handle.name}"] = norm.full_tensor() if isinstance(norm, DTensor) else norm
