"""One training step taken by hand, with everything that a check wants to see of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from fastvideo_core.contracts.method import DistillMethod, LossMap
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.weights.parameters import clean_name
from fastvideo_testing.draws import PerSampleDraws

ByName = dict[str, Tensor]


@dataclass(frozen=True)
class StepRecord:
    """What a step was.

    Attributes:
        step: its number, 1-based.
        losses: of every phase of every round, detached copies.
        metrics: likewise.
        gradients: by role and name, as they stood before the optimizers were stepped; only parameters that have one.
    """

    step: int
    losses: list[LossMap] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    gradients: dict[str, ByName] = field(default_factory=dict)


def take_step(
    method: DistillMethod,
    batches: Sequence[Any],
    step: int,
    *,
    draws: PerSampleDraws | None = None,
    first_samples: Sequence[int] = (),
    update: bool = True,
    vsa_sparsity: float = 0.0,
    before_update: Callable[[], None] = lambda: None,
) -> StepRecord:
    """One step as the trainer takes it, without clipping: a round for each of `batches`, then the update.

    Raises:
        AssertionError: a phase has no total_loss, or a loss that is no finite scalar.

    Args:
        draws: told where each round's samples stand among the step's samples, `first_samples`.
        update: whether optimizers and schedulers are stepped; gradients are dropped either way.
        vsa_sparsity: what `single_train_step` is given of it.
        before_update: called when all gradients are there.
    """
    record = StepRecord(step)
    for index, batch in enumerate(batches):
        if draws is not None:
            draws.begin(step, first_samples[index])
        for loss_map, outputs, metrics in phases(
            method.single_train_step(batch, step, current_vsa_sparsity=vsa_sparsity)
        ):
            _check_losses(step, loss_map)
            _backward(method, step, loss_map, outputs, len(batches))
            record.losses.append({name: loss.detach().clone() for name, loss in loss_map.items()})
            record.metrics.append(dict(metrics))
    for handle in method.bundle:
        record.gradients[handle.name] = gradients(handle)
    before_update()
    if update:
        method.optimizers_schedulers_step(step)
    method.optimizers_zero_grad(step)
    return record


def _check_losses(step: int, losses: LossMap) -> None:
    assert "total_loss" in losses, (
        f"step {step} gave the losses {', '.join(losses)}; the one that is back-propagated is called total_loss"
    )
    for name, loss in losses.items():
        assert isinstance(loss, Tensor), (
            f"{name} of step {step} is a {type(loss).__name__}, not a tensor; do not call item()"
        )
        assert loss.ndim == 0, f"{name} of step {step} has shape {list(loss.shape)}, not a scalar"
        assert torch.isfinite(loss), f"{name} of step {step} is {loss.item()}"


def _backward(method: DistillMethod, step: int, losses: LossMap, outputs: Any, rounds: int) -> None:
    try:
        method.backward(losses, outputs, grad_accum_rounds=rounds)
    except RuntimeError as error:
        if "second time" in str(error):
            what = (
                "reaches into the graph of an earlier phase, which is gone by then: detach() what goes from one phase into "
                "the next, or give one loss for both"
            )
        elif "does not require grad" in str(error):
            what = "has no graph: is the trained network called under torch.no_grad(), or its output detached?"
        else:
            raise
        raise AssertionError(f"a loss of step {step} {what}") from error


def phases(result: Any) -> Iterator[tuple[LossMap, dict[str, Any], dict[str, Any]]]:
    """What `single_train_step` gave, one phase at a time."""
    for phase in iter([result]) if isinstance(result, tuple) else result:
        is_phase = isinstance(phase, tuple) and len(phase) == 3
        assert is_phase, (
            f"single_train_step gives {type(phase).__name__}, not (loss_map, outputs, metrics) or several of them"
        )
        yield phase


def gradients(handle: RoleHandle) -> ByName:
    """Copies of a role's gradients by parameter name, whole even where they are sharded."""
    return {clean_name(name): _whole(p.grad) for name, p in handle.named_parameters() if p.grad is not None}


def weights(handle: RoleHandle) -> ByName:
    """Copies of a role's parameters and buffers by name, whole even where they are sharded."""
    return {
        clean_name(f"{module_name}.{name}"): _whole(tensor)
        for module_name, module in handle.modules.items()
        for name, tensor in module.state_dict().items()
    }


def _whole(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).clone()
