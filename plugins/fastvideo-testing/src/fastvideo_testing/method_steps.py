"""Checks of a method's steps: losses, metrics, who gets gradients, what an update changes, where random numbers come from."""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from fastvideo_core.contracts.method import DistillMethod
from fastvideo_core.training.trainer import endless
from fastvideo_testing.compare import changed, loudest
from fastvideo_testing.method_suite import MethodSuite, compare_ends
from fastvideo_testing.recorded_calls import tensors_of
from fastvideo_testing.steps import gradients, phases, take_step, weights

_HALF = (torch.bfloat16, torch.float16)


class StepChecks(MethodSuite):
    """What one step may do, and what it must."""

    # --- losses and metrics -----------------------------------------------------------------------------------------

    def test_losses_are_finite_scalars(self, tmp_path: Path) -> None:
        for record in self.records(self.runtime(tmp_path)):
            assert record.losses, f"step {record.step} gave no loss"

    def test_losses_are_computed_in_float32(self, tmp_path: Path) -> None:
        method, batches = (runtime := self.runtime(tmp_path)).method, endless(runtime.dataloader)
        method.on_train_start()
        for step in range(1, self.steps + 1):
            with _HalfPrecision() as seen:
                take_step(method, [next(batches)], step)
            assert not seen.made, (
                f"step {step} computes {seen.made[0]} in half precision, though the family gives float32: differences of "
                "predictions are rounded away there; leave precision to the family, and losses in float32"
            )

    def test_what_is_not_finite_stops_the_run(self, tmp_path: Path) -> None:
        method = self.runtime(tmp_path / "roles").method
        names = [handle.name for handle in method.bundle]
        for name in names:
            runtime = self.still(tmp_path / name)
            with torch.no_grad():
                for _, parameter in runtime.method.bundle[name].named_parameters():
                    parameter.fill_(float("nan"))
            batches, is_used, is_seen = endless(runtime.dataloader), False, False
            runtime.method.on_train_start()
            for step in range(1, self.steps + 1):
                used, seen = _bad_step(runtime.method, next(batches), step, name)
                is_used, is_seen = is_used or used, is_seen or seen
            assert is_seen or not is_used, (
                f"with a network of {name} that gives NaN every loss and gradient stays finite: what is wrong must stop the "
                "run, not vanish; leave out nan_to_num, isfinite and nanmean"
            )

    def test_metrics_are_finite_and_hold_no_graph(self, tmp_path: Path) -> None:
        for record in self.records(self.runtime(tmp_path)):
            for metrics in record.metrics:
                for name, value in metrics.items():
                    assert isinstance(value, (Tensor, int, float)), (
                        f"the metric {name} of step {record.step} is a {type(value).__name__}: give a number or a tensor"
                    )
                    assert not (isinstance(value, Tensor) and value.requires_grad), (
                        f"the metric {name} still has its graph, which would keep the step's activations alive; "
                        "detach() it"
                    )
                    finite = bool(torch.isfinite(value).all()) if isinstance(value, Tensor) else math.isfinite(value)
                    assert finite, (
                        f"the metric {name} of step {record.step} is {value}: is it the mean of nothing, or of something that "
                        "is not finite? Leave it out of the steps where there is none"
                    )

    # --- gradients and updates --------------------------------------------------------------------------------------

    def test_gradients_reach_the_due_roles_only(self, tmp_path: Path) -> None:
        runtime = self.runtime(tmp_path)
        never = set(self.trainable)
        for record in self.records(runtime):
            due = {handle.name for handle in runtime.method.due_roles(record.step)}
            for handle in runtime.method.bundle:
                found = loudest(record.gradients[handle.name])
                if handle.name in due:
                    assert record.gradients[handle.name], (
                        f"step {record.step} updates {handle.name}, but it has no gradient"
                    )
                    assert found > 0, f"step {record.step} updates {handle.name}, but all its gradients are 0"
                else:
                    reason = "is frozen" if not handle.trainable else "is not due (due_roles)"
                    assert found == 0, (
                        f"step {record.step} leaves a gradient (largest {found:.3g}) in {handle.name}, which {reason}: "
                        "compute it under torch.no_grad(), or detach what goes into it"
                    )
            never -= due
        assert not never, f"{', '.join(sorted(never))} was never due in {self.steps} steps; raise `steps`, or train it"

    def test_an_update_changes_the_due_roles_and_nothing_else(self, tmp_path: Path) -> None:
        runtime = self.runtime(tmp_path)
        method, batches = runtime.method, endless(runtime.dataloader)
        before = {handle.name: weights(handle) for handle in method.bundle}
        idle = {handle.name for handle in method.bundle if handle.is_saved and not handle.trainable}
        method.on_train_start()
        for step in range(1, self.steps + 1):
            take_step(method, [next(batches)], step, before_update=lambda: _unchanged(method, step, before))  # noqa: B023
            due = {handle.name for handle in method.due_roles(step)}
            for handle in method.bundle:
                after = weights(handle)
                moved = changed(before[handle.name], after)
                if handle.name in due:
                    assert moved, f"step {step} updates {handle.name}, but not one of its weights changed"
                elif handle.trainable or not handle.is_saved:
                    why = "is frozen (one that the method changes is `saved`)" if not handle.trainable else "is not due"
                    assert not moved, f"step {step} changed {moved[0]} of {handle.name}, which {why}"
                elif moved:
                    idle.discard(handle.name)
                before[handle.name] = after
                left = [name for name, p in handle.named_parameters() if p.grad is not None]
                assert not left, (
                    f"after step {step} {handle.name} still has the gradient of {left[0]}: it would be added to "
                    "the next step's; optimizers_zero_grad must drop ALL gradients"
                )
        assert not idle, (
            f"{', '.join(sorted(idle))} is frozen and `saved`, as a role that the method itself changes, and not one of its "
            f"weights changed in {self.steps} steps: update it in optimizers_schedulers_step, or raise `steps`"
        )

    def test_every_optimizer_that_steps_is_a_role_s(self, tmp_path: Path) -> None:
        runtime = self.runtime(tmp_path)
        method = runtime.method
        with _Stepped() as stepped:
            for record in self.records(runtime):
                known = [optimizer for handle in method.bundle for optimizer in handle.optimizers.values()]
                clipped = method.get_optimizers(record.step)
                for optimizer in stepped.optimizers:
                    kind = type(optimizer).__name__
                    assert any(optimizer is one for one in known), (
                        f"step {record.step} steps a {kind} that no role has: its gradients are not clipped, its state is in "
                        "no checkpoint; write it into the handle: self.student.optimizers[NAME] = optimizer"
                    )
                    assert any(optimizer is one for one in clipped), (
                        f"step {record.step} steps a {kind} that get_optimizers does not give, so that its gradients are not "
                        "clipped: let due_roles say who is due, and get_optimizers follow from it"
                    )
                    times = sum(optimizer is one for one in stepped.optimizers)
                    assert times == 1, f"step {record.step} steps a {kind} {times} times; leave it to super()"
                stepped.optimizers.clear()

    def test_frozen_networks_stay_in_eval_mode(self, tmp_path: Path) -> None:
        runtime = self.runtime(tmp_path)
        for record in self.records(runtime):
            for handle in runtime.method.bundle:
                wrong = [name for name, module in handle.modules.items() if module.training and not handle.trainable]
                assert not wrong, (
                    f"after step {record.step} {handle.name}.{wrong[0]}, which is frozen, is in train mode, in which dropout "
                    "changes what it gives: do not call train() on the method or on a frozen network"
                )

    # --- batches and random numbers ---------------------------------------------------------------------------------

    def test_batches_stay_as_they_are(self, tmp_path: Path) -> None:
        runtime = self.runtime(tmp_path)
        method, batches = runtime.method, endless(runtime.dataloader)
        kept: list[dict[str, Tensor]] = []
        for record, recorded in self.recorded(runtime):
            for batch, before in recorded.batches:
                moved = changed(before, tensors_of(batch))
                assert not moved, (
                    f"step {record.step} changed {moved[0]} in place: it may belong to the family, which hands the same text "
                    "out again, or to a later phase; make a new tensor"
                )
        for step in range(self.steps + 1, 2 * self.steps + 1):
            raw = next(batches)
            kept.append({name: tensor.clone() for name, tensor in tensors_of(raw).items()})
            take_step(method, [raw], step)
            moved = changed(kept[-1], tensors_of(raw))
            assert not moved, f"step {step} changed {moved[0]} of the raw batch in place; make a new tensor"

    def test_random_numbers_come_from_the_method_s_streams(self, tmp_path: Path) -> None:
        runtime = self.runtime(tmp_path)
        batches = endless(runtime.dataloader)
        runtime.method.on_train_start()
        for step in range(1, self.steps + 1):
            raw = next(batches)
            before = _global_states()
            take_step(runtime.method, [raw], step)
            after = _global_states()
            for name, state in before.items():
                assert torch.equal(state, after[name]), (
                    f"step {step} drew from {name}, which other code shares and which differs between processes by accident; "
                    "pass generator=self.rng.local(NAME), or self.rng.shared(NAME) for what must be equal on all"
                )

    def test_equal_runs_are_equal(self, tmp_path: Path) -> None:
        first = self.train(self.runtime(tmp_path / "first"), self.steps)
        second = self.train(self.runtime(tmp_path / "second"), self.steps)
        compare_ends(
            "two runs with the same seed (does something draw from a generator of its own, the clock, or a set's order?)",
            first,
            second,
        )

    def test_the_family_is_told_that_training_starts(self, tmp_path: Path) -> None:
        for _, recorded in self.recorded(self.runtime(tmp_path)):
            assert recorded.starts == 1, (
                f"the adapter's on_train_start was called {recorded.starts} times: a method with an on_train_start of its own "
                "calls super().on_train_start() in it"
            )


class _Stepped:
    """Inside, remembers the optimizers that are stepped; not those that another one steps as a part of itself."""

    def __init__(self) -> None:
        self.optimizers: list[Optimizer] = []
        self._depth = 0

    def __enter__(self) -> _Stepped:
        self._hooks = [
            register_optimizer_step_pre_hook(self._begins),
            register_optimizer_step_post_hook(self._ends),
        ]
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _begins(self, optimizer: Optimizer, *arguments: object) -> None:
        if self._depth == 0:
            self.optimizers.append(optimizer)
        self._depth += 1

    def _ends(self, *arguments: object) -> None:
        self._depth -= 1


class _HalfPrecision(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, remembers operations whose result is in half precision."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dtype in _HALF:
            self.made.append(f"{func.__name__.partition('.')[0]} ({str(result.dtype).partition('.')[2]})")
        return result


def _bad_step(method: DistillMethod, batch: Any, step: int, role: str) -> tuple[bool, bool]:
    """One step without an update: whether the role's network was called, and whether anything that is checked was not finite."""
    used, seen = [], False
    hooks = [
        module.register_forward_hook(lambda *_: used.append(True)) for module in method.bundle[role].modules.values()
    ]
    try:
        for loss_map, outputs, _ in phases(method.single_train_step(batch, step)):
            seen = seen or not all(bool(torch.isfinite(loss).all()) for loss in loss_map.values())
            method.backward(loss_map, outputs, grad_accum_rounds=1)
    finally:
        for hook in hooks:
            hook.remove()
    for handle in method.bundle:
        seen = seen or not all(bool(torch.isfinite(gradient).all()) for gradient in gradients(handle).values())
    method.optimizers_zero_grad(step)
    return bool(used), seen


def _unchanged(method: DistillMethod, step: int, before: dict[str, dict[str, Tensor]]) -> None:
    for handle in method.bundle:
        names = {name for name, _ in handle.named_parameters()}
        moved = [name for name in changed(before[handle.name], weights(handle)) if name in names]
        assert not moved, (
            f"step {step} changed {moved[0]} of {handle.name} before the update, in each accumulation round and even where the "
            "update is skipped: change weights in optimizers_schedulers_step"
        )


def _global_states() -> dict[str, Tensor]:
    """The state of every generator that belongs to nobody."""
    states = {"torch's global generator": torch.get_rng_state()}
    states["Python's random"] = torch.tensor(random.getstate()[1])
    if "numpy" in sys.modules:
        import numpy

        state: Any = numpy.random.get_state()
        states["numpy's global generator"] = torch.tensor([*map(int, state[1]), int(state[2])])
    return states
