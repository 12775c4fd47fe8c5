"""One update of a run: left out, on all processes alike, when a loss or a gradient is not finite.

The decision is made where the losses are, so that on a GPU the host does not wait for it. An optimizer that takes a
`found_inf` flag on the device (torch's fused ones) leaves the update out there; the host hears of it one step later, when
the device has long decided, and takes the learning-rate schedules back. Any other optimizer is stepped by the host
alone, which therefore waits for the flag before the update; without a GPU there is nothing to wait for.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fastvideo_core.callbacks.manager import CallbackManager
from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.distributed import context
from fastvideo_core.errors import NonFiniteError, Problem
from fastvideo_core.tracking.metrics import to_floats

logger = logging.getLogger(__name__)


class _LateNumbers:
    """Numbers on the device that the host will read later, without waiting for what was queued after them."""

    def __init__(self, values: Tensor) -> None:
        self._values = values
        self._copied: torch.cuda.Event | None = None
        if values.is_cuda:
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()

    def read(self) -> list[float]:
        if self._copied is not None:
            self._copied.synchronize()
        numbers: list[float] = self._values.tolist()
        return numbers


@dataclass(frozen=True)
class _Schedules:
    """Learning rates and their schedules as they were before an update."""

    rates: list[tuple[dict[str, Any], Any]]
    states: list[tuple[LRScheduler, dict[str, Any]]]

    @classmethod
    def of(cls, optimizers: Sequence[Optimizer], schedulers: Sequence[LRScheduler]) -> _Schedules:
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        states = [(scheduler, scheduler.state_dict()) for scheduler in schedulers]
        return cls([(group, group["lr"]) for group in groups], states)

    def restore(self) -> None:
        for scheduler, state in self.states:
            scheduler.load_state_dict(state)
        for group, rate in self.rates:
            group["lr"] = rate


@dataclass(frozen=True)
class _Pending:
    """An update whose outcome the host has not read yet."""

    step: int
    verdict: _LateNumbers
    metrics: Mapping[str, Any]
    schedules: _Schedules | None


class Updates:
    """Makes the updates of a run, and knows which were left out.

    Args:
        max_skipped: how many in a row may be left out.
    """

    def __init__(self, max_skipped: int) -> None:
        self._max_skipped = max_skipped
        self._in_row = 0
        self._total = 0
        self._unlogged = 0
        self._pending: _Pending | None = None
        self._stop: NonFiniteError | None = None
        self.request = 0
        """The highest request that any process made and that is known so far; see `make`. Whoever acts on it clears it."""

    def make(
        self,
        method: DistillMethod,
        callbacks: CallbackManager,
        step: int,
        checked: Sequence[Tensor],
        metrics: Mapping[str, Any],
        request: int = 0,
    ) -> None:
        """Steps what is due when all of `checked` are finite on all processes; else nothing changes.

        Args:
            checked: losses and gradient norms, any shapes.
            metrics: the step's, to say what was not finite.
            request: a small number that this process wants all to know after this update, whatever becomes of it.
        """
        self.settle()
        optimizers = method.get_optimizers(step)
        verdict = _verdict(checked, request)
        if all(getattr(optimizer, "_step_supports_amp_scaling", False) for optimizer in optimizers):
            schedules = _Schedules.of(optimizers, method.get_lr_schedulers(step))
            self._pending = _Pending(step, _LateNumbers(verdict), metrics, schedules)
            _step_unless(verdict[0], method, optimizers, step)
            callbacks.hook.after_optimizer_step(method=method, step=step, optimizers=optimizers, skipped=verdict[0])
            return
        self._pending = _Pending(step, _LateNumbers(verdict), metrics, None)
        if self.settle():
            method.optimizers_schedulers_step(step)
            callbacks.hook.after_optimizer_step(method=method, step=step, optimizers=optimizers, skipped=None)

    def settle(self) -> bool:
        """Reads the outcome of the last update, if it was not read yet; whether that update was made."""
        if self._pending is None:
            return True
        pending, self._pending = self._pending, None
        skipped, request = pending.verdict.read()
        self.request = max(self.request, int(request))
        if not skipped:
            self._in_row = 0
            return True
        if pending.schedules is not None:
            pending.schedules.restore()
        self._in_row += 1
        self._total += 1
        self._unlogged += 1
        found = _not_finite(to_floats(pending.metrics))
        logger.warning(
            "step %d is skipped: %s (%d in a row, %d in all)", pending.step, found, self._in_row, self._total
        )
        if self._in_row > self._max_skipped:
            in_row = f"; {self._in_row} steps in a row were skipped" if self._in_row > 1 else ""
            self._stop = NonFiniteError(
                Problem(
                    found=f"{found}{in_row}",
                    where=f"step {pending.step}",
                    allowed=f"training.max_skipped_steps is {self._max_skipped}",
                    fix="resume from the last checkpoint, whose weights are good, with a lower learning rate; "
                    "or look at the data of these steps",
                )
            )
        return False

    @property
    def failure(self) -> NonFiniteError | None:
        """Why the run must end, as far as is known; None while it may go on."""
        return self._stop

    def take_skipped(self) -> int:
        """How many updates were left out since the last time."""
        taken, self._unlogged = self._unlogged, 0
        return taken


def _verdict(checked: Sequence[Tensor], request: int) -> Tensor:
    """[not finite (0 or 1), request], the highest over all processes; float32 on the device. Collective."""
    device = context.device()
    bad = torch.zeros((), device=device)
    if checked:
        means = torch.stack([value.detach().to(device, torch.float32).mean() for value in checked])
        bad = (~torch.isfinite(means).all()).float()
    verdict = torch.stack([bad, torch.full_like(bad, float(request))])
    if context.world_size() > 1:
        dist.all_reduce(verdict, op=dist.ReduceOp.MAX)
    return verdict


def _step_unless(skip: Tensor, method: DistillMethod, optimizers: Sequence[Optimizer], step: int) -> None:
    for optimizer in optimizers:
        optimizer.found_inf = skip  # type: ignore[attr-defined]
    try:
        method.optimizers_schedulers_step(step)
    finally:
        for optimizer in optimizers:
            del optimizer.found_inf  # type: ignore[attr-defined]


def _not_finite(values: Mapping[str, float]) -> str:
    bad = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    losses = [text for text in bad if "loss" in text or "grad_norm" in text]
    return ", ".join(losses or bad) or "a loss or a gradient is not finite"
