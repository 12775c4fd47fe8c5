"""Gradient clipping over what one optimizer owns."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer


def clip_gradients(optimizer: Optimizer, max_norm: float) -> Tensor | None:
    """Scales the optimizer's gradients so that their joint L2 norm is at most `max_norm`; 0 clips nothing.

    Returns:
        The norm before clipping, a 0-dim tensor on the device; None when there are no gradients.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if not parameters:
        return None
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm if max_norm > 0 else float("inf"))
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
