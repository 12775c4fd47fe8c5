"""One optimizer update: clips gradients; skips the update, on all processes alike, when a loss or a gradient is not finite.

The host reads one flag per step and waits for it. That costs little: a step that is logged, which by default is every
step, reads its metrics anyhow.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from fastvideo_core.callbacks.manager import CallbackManager
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.distributed import context
from fastvideo_core.errors import NonFiniteError, Problem
from fastvideo_core.tracking.metrics import to_floats

logger = logging.getLogger(__name__)


def clip_gradients(optimizer: Optimizer, max_norm: float) -> Tensor | None:
    """Scales the optimizer's gradients so that their joint L2 norm is at most `max_norm`; 0 clips nothing.

    The norm before clipping, a 0-dim tensor on the device, or None when there are no gradients.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if not parameters:
        return None
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm if max_norm > 0 else float("inf"))
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


class Updates:
    """Makes the updates of a run, of which at most `max_skipped` in a row may be left out, and knows which were.

    `failure` is why the run must end, None while it may go on.
    """

    def __init__(self, max_skipped: int, method: DistillMethod, callbacks: CallbackManager) -> None:
        self._max_skipped, self._method, self._callbacks = max_skipped, method, callbacks
        self._in_row = self._total = self._unlogged = 0
        self.failure: NonFiniteError | None = None

    def make(self, step: int, checked: Sequence[Tensor], metrics: Mapping[str, Any], request: int) -> int:
        """Steps what is due when all of `checked` (losses, gradient norms) are finite on all processes; else nothing changes.

        `metrics` are the step's, to say what was not finite. The highest `request` of all processes. Collective.
        """
        skipped, highest = _agreed(checked, request)
        if skipped:
            self._note_skipped(step, metrics)
        else:
            self._in_row = 0
            self._method.optimizers_schedulers_step(step)
            stepped = self._method.get_optimizers(step)
            self._callbacks.hook.after_optimizer_step(method=self._method, step=step, optimizers=stepped)
        return highest

    def take_skipped(self) -> int:
        """How many updates were left out since the last time."""
        taken, self._unlogged = self._unlogged, 0
        return taken

    def _note_skipped(self, step: int, metrics: Mapping[str, Any]) -> None:
        self._in_row += 1
        self._total += 1
        self._unlogged += 1
        found = _not_finite(to_floats(metrics))
        logger.warning("step %d is skipped: %s (%d in a row, %d in all)", step, found, self._in_row, self._total)
        if self._in_row > self._max_skipped:
            in_row = f"; {self._in_row} steps in a row were skipped" if self._in_row > 1 else ""
            allowed = f"training.max_skipped_steps is {self._max_skipped}"
            fix = "resume from the last checkpoint, whose weights are good, with a lower learning rate; "
            fix += "or look at the data of these steps"
            self.failure = NonFiniteError(Problem(f"{found}{in_row}", f"step {step}", allowed, fix))


def _agreed(checked: Sequence[Tensor], request: int) -> tuple[bool, int]:
    """Whether any process has something that is not finite, and the highest request. Collective."""
    device = context.device()
    means = [value.detach().to(device, torch.float32).mean() for value in checked]
    bad = ~torch.isfinite(torch.stack([torch.zeros((), device=device), *means])).all()
    verdict = torch.stack([bad.float(), torch.full((), float(request), device=device)])
    if context.world_size() > 1:
        dist.all_reduce(verdict, op=dist.ReduceOp.MAX)
    skipped, highest = verdict.tolist()
    return bool(skipped), int(highest)


def _not_finite(values: Mapping[str, float]) -> str:
    bad = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    losses = [text for text in bad if "loss" in text or "grad_norm" in text]
    return ", ".join(losses or bad) or "a loss or a gradient is not finite"
