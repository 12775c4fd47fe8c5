"""What the training loop does when a step fails, or when the system asks it to stop."""

from __future__ import annotations

import math
import os
import signal
import threading
from typing import ClassVar

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fastvideo_core.callbacks.config import EMAConfig
from fastvideo_core.callbacks.ema import EMACallback
from fastvideo_core.callbacks.manager import CallbackManager
from fastvideo_core.checkpoint import storage
from fastvideo_core.checkpoint.storage import CheckpointWriteError
from fastvideo_core.checkpoint.weights import read_role_weights
from fastvideo_core.errors import FastVideoError, NonFiniteError, RunStopped
from fastvideo_core.training.trainer import DistillTrainer
from fastvideo_core.training.updates import Updates
from fastvideo_core.training.validation import ValidationError
from fastvideo_testing.waiting import wait_until

from ..full_disk import full_disk
from ..saving import manager_of
from .one_weight import Linear, Watch, config_of, metrics_of, numbers, run

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
    manager = manager_of(cfg, every=0)
    good = state_after(tmp_path / "good", [1.0, 3.0], fused=fused)
    batches = numbers(1, 3, math.nan, math.nan, math.nan, math.nan)
    with pytest.raises(NonFiniteError, match=r"step 4: total_loss is nan, .*; 2 steps in a row were skipped") as caught:
        DistillTrainer(cfg.training, config={}).run(method, batches, 6, checkpoint_manager=manager)
    assert "allowed: training.max_skipped_steps is 1" in str(caught.value)
    assert "resume from the last checkpoint, whose weights are good" in str(caught.value)
    assert method.weight().tolist() == good[0]
    path = storage.resolve_checkpoint(tmp_path)
    assert read_role_weights(path, "student", ema=False)["net"]["w"].tolist() == good[0]


def test_a_run_that_may_skip_no_step_ends_at_the_first(tmp_path):
    method = Linear(config_of(tmp_path, max_skipped_steps=0))
    with pytest.raises(NonFiniteError, match="step 3: total_loss is nan, grad_norm is nan, grad_norm/student is nan\n"):
        run(method, numbers(0.5, 0.5, math.nan), 6, every=1)
    assert method.weight().item() == 1.0
    assert storage.resolve_checkpoint(tmp_path).name == "checkpoint-000003"


def test_skipped_steps_with_good_ones_between_them_do_not_end_the_run(tmp_path):
    method = Linear(config_of(tmp_path, max_skipped_steps=1))
    run(method, numbers(0.5, math.nan, 0.5, math.nan, 0.5), 5)
    assert method.weight().item() == 0.5


def test_an_update_reads_one_tensor(tmp_path):
    class Reads(TorchDispatchMode):
        seen: ClassVar = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket.__name__ in ("_local_scalar_dense", "_to_copy", "copy_"):
                self.seen.append(func)
            return func(*args, **(kwargs or {}))

    method = Linear(config_of(tmp_path))
    method.backward(method.single_train_step(torch.ones(()), 1)[0], {})
    with Reads():
        Updates(0, method, CallbackManager({})).make(1, [torch.ones(3), torch.ones(())], {}, 0)
    assert len(Reads.seen) == 1


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


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_stop_finishes_the_step_and_saves_it(tmp_path, number, status):
    before = signal.getsignal(number)
    method = Signalled(config_of(tmp_path), number)
    with pytest.raises(RunStopped) as stopped:
        run(method, numbers(1), 9, every=2)
    assert stopped.value.exit_code == status
    assert (
        str(stopped.value)
        == f"stopped by {number.name} after step 3, and saved as checkpoint-000003; --resume latest goes on"
    )
    assert method.weight().item() == 2.0 - 3
    assert storage.resolve_checkpoint(tmp_path).name == "checkpoint-000003"
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


# --- what cannot be written ---------------------------------------------------------------------------------------


def is_writing() -> bool:
    return any(thread.name == "fastvideo-checkpoint" for thread in threading.enumerate())


class Waiting(Linear):
    """Waits in step 202 until the checkpoint of step 200 beside it has come to its end."""

    def single_train_step(self, batch, iteration, *, current_vsa_sparsity=0.0):
        if iteration == 202:
            wait_until(lambda: not is_writing(), "the end of the checkpoint")
        return super().single_train_step(batch, iteration)


def test_a_checkpoint_that_fails_in_the_background_ends_the_run_soon_with_the_state_it_then_has(tmp_path, monkeypatch):
    full_disk(monkeypatch, {200})
    method = Waiting(config_of(tmp_path))
    manager = manager_of(method.cfg, every=200, background=True)
    trainer = DistillTrainer(method.cfg.training, config={})
    with pytest.raises(CheckpointWriteError, match="the run ends for that; its state after step") as raised:
        trainer.run(method, numbers(1), 1000, checkpoint_manager=manager)
    assert "checkpoint-000200: the checkpoint could not be written: No space" in str(raised.value)
    last = method.seen[-1][0]
    assert last < 400  # where the next one is due
    assert storage.resolve_checkpoint(tmp_path).name == f"checkpoint-{last:06d}"
    assert (
        read_role_weights(storage.resolve_checkpoint(tmp_path), "student", ema=False)["net"]["w"].item() == 2.0 - last
    )


def test_a_run_that_diverges_onto_a_full_disk_tells_of_both(tmp_path, monkeypatch):
    full_disk(monkeypatch, {3})
    method = Linear(config_of(tmp_path, max_skipped_steps=0))
    with pytest.raises(NonFiniteError) as raised:
        run(method, numbers(0.5, 0.5, math.nan), 6, every=10)
    assert "step 3: total_loss is nan" in str(raised.value)
    assert "checkpoint-000003: the checkpoint could not be written: No space" in str(raised.value)


def test_a_step_is_saved_before_its_validation(tmp_path):
    class Validates(Linear):
        def log_validation(self, iteration):
            assert storage.resolve_checkpoint(tmp_path).name == f"checkpoint-{iteration:06d}"
            raise RuntimeError("broken")

    method = Validates(config_of(tmp_path, log_validation=True, validation_steps=2, on_validation_error="error"))
    with pytest.raises(ValidationError, match="broken"):
        run(method, numbers(1), 5, every=2)
    assert storage.resolve_checkpoint(tmp_path).name == "checkpoint-000002"


def test_a_run_that_is_asked_to_stop_does_not_validate_first(tmp_path):
    method = Signalled(config_of(tmp_path, log_validation=True, validation_steps=1), signal.SIGTERM)
    with pytest.raises(RunStopped):
        run(method, numbers(1), 9, every=0)
    assert method.validated == [1, 2]


def test_a_video_that_cannot_be_written_does_not_end_the_run(tmp_path, caplog):
    class FullDisk(Linear):
        def log_validation(self, iteration):
            super().log_validation(iteration)
            raise FastVideoError("a sampled video could not be written: No space left on device")

    method = FullDisk(config_of(tmp_path, log_validation=True, validation_steps=2))
    watch = run(method, numbers(1), 5)
    assert method.validated == watch.of("validation_end") == [2, 4]
    assert caplog.text.count("a sampled video could not be written: No space left on device\n    training goes on") == 2
