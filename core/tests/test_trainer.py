"""The training loop alone, with a method of one or two weights: what it calls, how often, and what it does when a step fails."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fastvideo_core.callbacks.base import Callback
from fastvideo_core.callbacks.config import EMAConfig
from fastvideo_core.callbacks.ema import EMACallback
from fastvideo_core.callbacks.hooks import hookimpl
from fastvideo_core.callbacks.manager import CallbackManager
from fastvideo_core.checkpoint import storage
from fastvideo_core.checkpoint.manager import CheckpointManager
from fastvideo_core.checkpoint.weights import read_role_weights
from fastvideo_core.config import PluginConfig, RecipeConfig, RoleConfig, RunConfig, TrainingArgs
from fastvideo_core.errors import NonFiniteError, RunStopped
from fastvideo_core.method import DistillMethod
from fastvideo_core.roles import RoleHandle, RoleManager
from fastvideo_core.trainer import DistillTrainer
from fastvideo_core.updates import Updates


class Weight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([2.0]))


class Linear(DistillMethod):
    """One phase: loss = batch * w of the student; SGD with rate 1."""

    def __init__(self, cfg, roles=("student",)):
        handles = {name: RoleHandle(name, {"net": Weight()}, "toy", trainable=True) for name in roles}
        super().__init__(cfg, RoleManager(handles), adapter=None)
        for handle in handles.values():
            handle.optimizers["sgd"] = torch.optim.SGD(handle.trainable_parameters(), lr=1.0)
        self.seen = []
        self.validated = []

    def weight(self, role="student"):
        return self.bundle[role].modules["net"].w

    def single_train_step(self, batch, iteration, *, current_vsa_sparsity=0.0):
        self.seen.append((iteration, batch))
        return {"total_loss": (batch * self.weight()).sum()}, {}, {"batch": batch}

    def log_validation(self, iteration):
        self.validated.append(iteration)


class Phases(Linear):
    """Two phases, as a generator: the critic's loss is made after the student's was back-propagated."""

    def __init__(self, cfg):
        super().__init__(cfg, roles=("student", "critic"))
        self.gradient_before_the_second_phase = []

    def single_train_step(self, batch, iteration, *, current_vsa_sparsity=0.0):
        student = (batch * self.weight("student")).sum()
        yield {"total_loss": student, "student_loss": student.detach()}, {}, {}
        self.gradient_before_the_second_phase.append(self.weight("student").grad.item())
        critic = (10 * batch * self.weight("critic")).sum()
        yield {"total_loss": critic, "critic_loss": critic.detach()}, {}, {}


class Watch(Callback):
    """Writes down every hook, and the gradients that reach the optimizer."""

    def __init__(self):
        super().__init__(PluginConfig())
        self.calls = []
        self.errors = []
        self.gradients = []

    def of(self, hook):
        return [step for name, step in self.calls if name == hook]

    @hookimpl
    def train_start(self, start_step):
        self.calls.append(("train_start", start_step))

    @hookimpl
    def before_optimizer_step(self, method, step):
        self.gradients.append({h.name: [p.grad for p in h.trainable_parameters()] for h in method.bundle})
        self.calls.append(("before_optimizer_step", step))

    @hookimpl
    def step_end(self, step):
        self.calls.append(("step_end", step))

    @hookimpl
    def validation_start(self, step):
        self.calls.append(("validation_start", step))

    @hookimpl
    def validation_end(self, step):
        self.calls.append(("validation_end", step))

    @hookimpl
    def train_end(self, step):
        self.calls.append(("train_end", step))

    @hookimpl
    def exception(self, step, error):
        self.calls.append(("exception", step))
        self.errors.append(error)


def config_of(folder, roles=None, **training):
    args = {"output_dir": str(folder), "max_train_steps": 100, "max_grad_norm": 0, **training}
    return RunConfig(
        recipe=RecipeConfig(family="toy", method="toy"),
        roles={
            name: RoleConfig(path="toy", trainable=True, **own)
            for name, own in (roles or {"student": {}, "critic": {}}).items()
        },
        training=TrainingArgs(**args),
        pipeline_config=PluginConfig(),
        method_config=PluginConfig(),
        callbacks={},
        raw={},
        source="run.yaml",
    )


def numbers(*values):
    return [torch.tensor(float(value)) for value in values]


def run(method, batches, steps, *, start=0, every=None):
    """Trains and gives what the callback saw; with `every`, checkpoints are written as well."""
    watch = Watch()
    callbacks = CallbackManager({"watch": watch})
    manager = None
    if every is not None:
        manager = CheckpointManager(
            method.cfg.training.output_dir, every=every, keep=0, config_yaml=method.cfg.to_yaml(), versions={}
        )
    trainer = DistillTrainer(method.cfg.training, config={})
    trainer.run(method, batches, steps, start, checkpoint_manager=manager, callbacks=callbacks)
    return watch


def metrics_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# --- how often ----------------------------------------------------------------------------------------------------


def test_a_run_makes_exactly_max_steps_updates(tmp_path):
    method = Linear(config_of(tmp_path))
    watch = run(method, numbers(1), 5)
    assert [iteration for iteration, _ in method.seen] == [1, 2, 3, 4, 5]
    assert watch.of("before_optimizer_step") == watch.of("step_end") == [1, 2, 3, 4, 5]
    assert (watch.of("train_start"), watch.of("train_end")) == ([0], [5])
    assert method.weight().item() == 2.0 - 5


def test_a_resumed_run_goes_on_behind_its_start_step(tmp_path):
    method = Linear(config_of(tmp_path))
    watch = run(method, numbers(1), 5, start=3)
    assert [iteration for iteration, _ in method.seen] == [4, 5]
    assert (watch.of("train_start"), watch.of("train_end")) == ([3], [5])


def test_each_round_takes_the_next_batch(tmp_path):
    method = Linear(config_of(tmp_path, gradient_accumulation_steps=2))
    run(method, numbers(1, 2, 3, 4), 2)
    assert [(iteration, batch.item()) for iteration, batch in method.seen] == [(1, 1.0), (1, 2.0), (2, 3.0), (2, 4.0)]


def test_a_dataloader_that_ends_starts_over(tmp_path):
    method = Linear(config_of(tmp_path))
    run(method, numbers(1, 2, 3), 7)
    assert [batch.item() for _, batch in method.seen] == [1, 2, 3, 1, 2, 3, 1]


def test_a_dataloader_without_a_batch_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="list gave no batch"):
        run(Linear(config_of(tmp_path)), [], 3)


# --- gradients ----------------------------------------------------------------------------------------------------


def test_the_gradient_is_the_mean_over_accumulation_rounds(tmp_path):
    method = Linear(config_of(tmp_path, gradient_accumulation_steps=4))
    run(method, numbers(1, 2, 3, 6), 1)
    assert method.weight().item() == 2.0 - 3.0


def test_each_phase_is_back_propagated_before_the_next_is_made(tmp_path):
    method = Phases(config_of(tmp_path))
    run(method, numbers(3), 1)
    assert method.gradient_before_the_second_phase == [3.0]
    assert method.weight("critic").item() == 2.0 - 30.0


def test_phases_and_rounds_together_average_over_the_rounds_alone(tmp_path):
    method = Phases(config_of(tmp_path, gradient_accumulation_steps=2))
    run(method, numbers(1, 3), 1)
    assert method.weight("student").item() == 2.0 - 2.0
    assert method.weight("critic").item() == 2.0 - 20.0


def test_what_a_role_got_while_it_was_not_due_reaches_no_later_update(tmp_path):
    class Alternating(Phases):
        def due_roles(self, iteration):
            return [self.bundle["critic" if iteration % 2 else "student"]]

    method = Alternating(config_of(tmp_path))
    run(method, numbers(1, 5), 2)
    assert method.weight("critic").item() == 2.0 - 10.0  # of step 1; step 2 left it alone
    assert method.weight("student").item() == 2.0 - 5.0  # of step 2; without the 1 of step 1
    assert method.weight("critic").grad is None
    assert method.weight("student").grad is None


def test_each_optimizer_is_clipped_at_its_own_role_s_norm_else_at_training_s(tmp_path):
    cfg = config_of(tmp_path, roles={"student": {"max_grad_norm": 0.5}, "critic": {}}, max_grad_norm=4.0)
    method = Phases(cfg)
    run(method, numbers(3), 1)
    assert method.weight("student").item() == pytest.approx(2.0 - 0.5, abs=1e-5)
    assert method.weight("critic").item() == pytest.approx(2.0 - 4.0, abs=1e-5)
    assert metrics_of(tmp_path)[0]["grad_norm"] == pytest.approx(math.hypot(3.0, 30.0))  # before clipping


def test_a_role_s_norm_of_zero_turns_its_clipping_off(tmp_path):
    method = Phases(config_of(tmp_path, roles={"student": {"max_grad_norm": 0}, "critic": {}}, max_grad_norm=1.0))
    run(method, numbers(3), 1)
    assert method.weight("student").item() == 2.0 - 3.0
    assert method.weight("critic").item() == pytest.approx(2.0 - 1.0, abs=1e-5)


# --- metrics ------------------------------------------------------------------------------------------------------


def test_metrics_are_averaged_over_the_rounds(tmp_path):
    method = Linear(config_of(tmp_path, gradient_accumulation_steps=2))
    run(method, numbers(1, 4), 1)
    (line,) = metrics_of(tmp_path)
    assert line["batch"] == 2.5
    assert line["total_loss"] == 2.0 * 2.5
    assert line["lr/student"] == 1.0


def test_phases_are_logged_by_the_names_of_their_losses(tmp_path):
    run(Phases(config_of(tmp_path, gradient_accumulation_steps=2)), numbers(1, 3), 1)
    (line,) = metrics_of(tmp_path)
    assert (line["student_loss"], line["critic_loss"]) == (4.0, 40.0)
    assert "total_loss" not in line


def test_metrics_that_only_some_steps_make_are_logged_for_every_update(tmp_path):
    class Every(Linear):
        def single_train_step(self, batch, iteration, *, current_vsa_sparsity=0.0):
            losses, outputs, metrics = super().single_train_step(batch, iteration)
            return losses, outputs, {**metrics, **({"student_loss": batch * iteration} if iteration % 5 == 0 else {})}

    run(Every(config_of(tmp_path, logging_steps=3)), numbers(1), 12)
    logged = {line["step"]: line.get("student_loss") for line in metrics_of(tmp_path)}
    assert logged == {3: None, 6: 5.0, 9: None, 12: 10.0}


def test_the_forward_pass_of_a_method_without_phases_is_in_its_time(tmp_path):
    class Slow(Linear):
        def single_train_step(self, batch, iteration, *, current_vsa_sparsity=0.0):
            time.sleep(0.1)
            return super().single_train_step(batch, iteration)

    run(Slow(config_of(tmp_path)), numbers(1), 2)
    assert all(line["seconds/step"] >= 0.1 for line in metrics_of(tmp_path))


def test_gradient_norms_are_logged_by_role(tmp_path):
    run(Phases(config_of(tmp_path)), numbers(3), 1)
    (line,) = metrics_of(tmp_path)
    assert (line["grad_norm/student"], line["grad_norm/critic"]) == (3.0, 30.0)


def test_metrics_are_logged_every_logging_steps_and_at_the_last_step(tmp_path):
    run(Linear(config_of(tmp_path, logging_steps=3)), numbers(1), 7)
    assert [line["step"] for line in metrics_of(tmp_path)] == [3, 6, 7]


# --- what goes wrong ----------------------------------------------------------------------------------------------


class Watched(Linear):
    """Momentum, a schedule and an EMA, with or without an optimizer that decides on the device."""

    def __init__(self, cfg, *, fused):
        super().__init__(cfg)
        student = self.bundle["student"]
        student.optimizers.clear()
        student.optimizers["adamw"] = torch.optim.AdamW(student.trainable_parameters(), lr=0.1, fused=fused)
        student.lr_schedulers["adamw"] = torch.optim.lr_scheduler.LambdaLR(
            student.optimizers["adamw"], lambda update: 1 / (1 + update)
        )


def state_after(folder, values, *, fused, logging_steps=1, **training):
    """Everything that an update changes, after a run over the batches `values`."""
    method = Watched(config_of(folder, logging_steps=logging_steps, **training), fused=fused)
    callbacks = CallbackManager({"ema": EMACallback(EMAConfig(decay=0.5))})
    DistillTrainer(method.cfg.training, config={}).run(method, numbers(*values), len(values), callbacks=callbacks)
    student = method.bundle["student"]
    average = callbacks.callbacks["ema"].state_dict()["shadow"]["student"]["net"]["w"]
    moments = {key: value.tolist() for key, value in student.optimizers["adamw"].state[method.weight()].items()}
    return method.weight().tolist(), average.tolist(), moments, student.lr_schedulers["adamw"].state_dict()


@pytest.mark.parametrize("logging_steps", [1, 100])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(tmp_path, caplog, value, fused, logging_steps):
    values = [1.0, 3.0, value, 2.0, value, value, 5.0]
    skipping = state_after(tmp_path / "a", values, fused=fused, logging_steps=logging_steps)
    without = state_after(tmp_path / "b", [v for v in values if v != value and v == v], fused=fused)
    assert skipping == without
    assert f"step 3 is skipped: total_loss is {value}" in caplog.text
    assert "(2 in a row, 3 in all)" in caplog.text
    skipped = [line["skipped_steps"] for line in metrics_of(tmp_path / "a")]
    assert skipped == ([3] if logging_steps == 100 else [0, 0, 1, 0, 1, 1, 0])


def test_the_learning_rate_that_is_logged_after_a_skipped_step_is_the_one_that_is_used(tmp_path):
    for name, fused in (("host", False), ("device", True)):
        state_after(tmp_path / name, [1.0, math.nan, 1.0, 1.0], fused=fused)
        assert [line["lr/student"] for line in metrics_of(tmp_path / name)] == pytest.approx([0.1, 0.05, 0.05, 0.1 / 3])


@pytest.mark.parametrize("fused", [False, True])
def test_too_many_skipped_steps_in_a_row_end_the_run_with_the_last_good_weights(tmp_path, fused):
    cfg = config_of(tmp_path, max_skipped_steps=1)
    method = Watched(cfg, fused=fused)
    manager = CheckpointManager(tmp_path, every=0, keep=0, config_yaml="", versions={})
    good = state_after(tmp_path / "good", [1.0, 3.0], fused=fused)
    batches = numbers(1, 3, math.nan, math.nan, math.nan, math.nan)
    with pytest.raises(NonFiniteError, match=r"step 4: total_loss is nan, .*; 2 steps in a row were skipped") as caught:
        DistillTrainer(cfg.training, config={}).run(method, batches, 6, checkpoint_manager=manager)
    assert "allowed: training.max_skipped_steps is 1" in str(caught.value)
    assert "resume from the last checkpoint, whose weights are good" in str(caught.value)
    assert method.weight().tolist() == good[0]
    path = storage.latest_checkpoint(tmp_path)
    assert read_role_weights(path, "student", ema=False)["net"]["w"].tolist() == good[0]


def test_a_run_that_may_skip_no_step_ends_at_the_first(tmp_path):
    method = Linear(config_of(tmp_path, max_skipped_steps=0))
    with pytest.raises(NonFiniteError, match="step 3: total_loss is nan, grad_norm is nan, grad_norm/student is nan\n"):
        run(method, numbers(0.5, 0.5, math.nan), 6, every=1)
    assert method.weight().item() == 1.0
    assert storage.latest_checkpoint(tmp_path).name == "checkpoint-000003"


def test_skipping_on_the_device_reads_no_tensor_between_logs(tmp_path):
    class Waits(TorchDispatchMode):
        seen: ClassVar = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket.__name__ == "_local_scalar_dense":
                self.seen.append(func)
            return func(*args, **(kwargs or {}))

    updates = Updates(0)
    method = Watched(config_of(tmp_path), fused=True)
    callbacks = CallbackManager({"ema": EMACallback(EMAConfig())})
    callbacks.hook.train_start(method=method, start_step=0)
    loss = method.single_train_step(torch.ones(()), 1)[0]
    method.backward(loss, {})
    with Waits():
        updates.make(method, callbacks, 1, [loss["total_loss"], torch.ones(())], {})
    assert Waits.seen == []
    assert method.weight().item() == pytest.approx(1.9, abs=1e-2)


def test_a_gradient_that_is_not_finite_is_told_by_its_norm(tmp_path):
    class Steep(Linear):
        def single_train_step(self, batch, iteration, *, current_vsa_sparsity=0.0):
            return {"total_loss": (self.weight() - 2.0).sqrt().sum()}, {}, {}

    method = Steep(config_of(tmp_path, max_grad_norm=1.0, max_skipped_steps=0))
    with pytest.raises(NonFiniteError, match="step 1: grad_norm is inf"):
        run(method, numbers(1), 3)
    assert method.weight().item() == 2.0


# --- signals ------------------------------------------------------------------------------------------------------


class Signalled(Linear):
    """Sends this process a signal in the middle of step 3."""

    def __init__(self, cfg, number):
        super().__init__(cfg)
        self.number = number

    def single_train_step(self, batch, iteration, *, current_vsa_sparsity=0.0):
        if iteration == 3:
            os.kill(os.getpid(), self.number)
        return super().single_train_step(batch, iteration)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stop_finishes_the_step_and_saves_it(tmp_path, number, status):
    before = signal.getsignal(number)
    method = Signalled(config_of(tmp_path), number)
    with pytest.raises(RunStopped) as stopped:
        run(method, numbers(1), 9, every=2)
    assert stopped.value.exit_code == status
    assert str(stopped.value) == f"stopped by {number.name} after step 3, and saved as checkpoint-000003"
    assert method.weight().item() == 2.0 - 3
    assert storage.latest_checkpoint(tmp_path).name == "checkpoint-000003"
    assert metrics_of(tmp_path)[-1]["step"] == 3
    assert signal.getsignal(number) is before


def test_sigusr1_saves_and_goes_on(tmp_path):
    method = Signalled(config_of(tmp_path), signal.SIGUSR1)
    run(method, numbers(1), 6, every=0)
    saved = [step for step in range(1, 7) if storage.checkpoint_path(tmp_path, step).exists()]
    assert saved == [3, 6]
    assert method.weight().item() == 2.0 - 6


def test_an_error_in_a_step_reaches_the_callbacks_with_its_step(tmp_path):
    class Failing(Linear):
        def single_train_step(self, batch, iteration, *, current_vsa_sparsity=0.0):
            if iteration == 3:
                raise RuntimeError("the third step fails")
            return super().single_train_step(batch, iteration)

    watch = Watch()
    trainer = DistillTrainer(config_of(tmp_path).training, config={})
    with pytest.raises(RuntimeError, match="the third step fails") as caught:
        trainer.run(Failing(config_of(tmp_path)), numbers(1), 5, callbacks=CallbackManager({"watch": watch}))
    assert watch.of("exception") == [3]
    assert watch.errors == [caught.value]
    assert watch.of("train_end") == []
    assert watch.of("step_end") == [1, 2]


# --- validation and checkpoints -----------------------------------------------------------------------------------


def test_validation_comes_every_validation_steps_between_its_hooks(tmp_path):
    method = Linear(config_of(tmp_path, log_validation=True, validation_steps=2))
    watch = run(method, numbers(1), 5)
    assert method.validated == [2, 4]
    around = [call for call in watch.calls if call[0].startswith("validation")]
    assert around == [("validation_start", 2), ("validation_end", 2), ("validation_start", 4), ("validation_end", 4)]


def test_no_validation_when_it_is_off(tmp_path):
    method = Linear(config_of(tmp_path, validation_steps=1))
    watch = run(method, numbers(1), 2)
    assert method.validated == watch.of("validation_start") == []


def test_a_validation_that_fails_still_calls_its_end(tmp_path):
    class Broken(Linear):
        def log_validation(self, iteration):
            raise RuntimeError("no video")

    watch = Watch()
    cfg = config_of(tmp_path, log_validation=True, validation_steps=2)
    with pytest.raises(RuntimeError, match="no video"):
        DistillTrainer(cfg.training, config={}).run(
            Broken(cfg), numbers(1), 5, callbacks=CallbackManager({"watch": watch})
        )
    assert watch.calls[-3:] == [("validation_start", 2), ("validation_end", 2), ("exception", 2)]


def test_a_checkpoint_is_written_when_due_and_at_the_end(tmp_path):
    run(Linear(config_of(tmp_path)), numbers(1), 5, every=2)
    assert [storage.checkpoint_path(tmp_path, step).exists() for step in range(1, 6)] == [
        False,
        True,
        False,
        True,
        True,
    ]
