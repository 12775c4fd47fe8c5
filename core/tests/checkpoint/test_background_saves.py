"""Checkpoints that are written while training goes on."""

from __future__ import annotations

import errno
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from fastvideo_core import PluginConfig
from fastvideo_core.callbacks.hooks import Callback, hookimpl
from fastvideo_core.checkpoint import manager as manager_module
from fastvideo_core.checkpoint import storage
from fastvideo_core.checkpoint.storage import CheckpointWriteError, choose
from fastvideo_testing.waiting import LIMIT, wait_until

from ..full_disk import full_disk
from ..saving import manager_of
from .toy_run import ToyRun, assert_same, toy_run


def in_background(folder, *, skip_errors=False, keep=0, **options) -> ToyRun:
    run = toy_run(folder, **options)
    run.manager = manager_of(run.method.cfg, keep=keep, background=True, skip_errors=skip_errors)
    run.manager.attach(run.method, run.callbacks, run.loader)
    return run


@pytest.fixture
def gate(monkeypatch):
    """Writing starts when the gate is opened."""
    opened, writing = threading.Event(), threading.Lock()
    original = manager_module.write_tensors

    def gated(*args):
        assert opened.wait(LIMIT)
        assert writing.acquire(blocking=False), "two checkpoints at a time"
        try:
            return original(*args)
        finally:
            writing.release()

    monkeypatch.setattr(manager_module, "write_tensors", gated)
    yield opened
    opened.set()


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_what_is_saved_is_the_state_of_that_step_whatever_is_trained_meanwhile(tmp_path, gate):
    run = in_background(tmp_path).steps(1, 3)
    run.manager.save(3)
    expected = toy_run(tmp_path / "other").steps(1, 3)
    run.steps(4, 6)
    assert names(tmp_path) == []
    gate.set()
    run.manager.finish()
    resumed = toy_run(tmp_path)
    assert resumed.load(tmp_path / "checkpoint-000003") == 3
    assert_same(resumed.fingerprint(), expected.fingerprint())
    assert_same(resumed.steps(4, 6).fingerprint(), run.fingerprint())


def test_the_next_save_waits_for_the_one_before(tmp_path, gate):
    run = in_background(tmp_path)
    run.manager.save(1)
    opener = threading.Timer(0.2, gate.set)
    opener.start()
    run.manager.save(2)
    assert gate.is_set()
    assert "checkpoint-000001" in names(tmp_path)
    run.manager.finish()
    assert names(tmp_path) == ["checkpoint-000001", "checkpoint-000002"]


def test_host_memory_is_used_again(tmp_path):
    run = in_background(tmp_path)
    addresses = []
    for step in (1, 2, 3):
        run.steps(step, step).manager.save(step)
        run.manager.finish()
        addresses.append({key: memory.data_ptr() for key, memory in run.manager._copies._memory.items()})
    weights = [key for key in addresses[0] if key.startswith("roles.")]
    assert weights
    assert all(addresses[0][key] == addresses[2][key] for key in weights)


def test_callbacks_hear_of_it_in_the_main_thread_once_it_is_complete(tmp_path, gate):
    heard = []

    class Watcher(Callback):
        @hookimpl
        def checkpoint_saved(self, path, step):
            heard.append((step, storage.flaw(path), threading.current_thread() is threading.main_thread()))

    run = in_background(tmp_path, callbacks={"watcher": Watcher(PluginConfig())})
    run.manager.save(1)
    assert not run.manager.poll()
    assert heard == []
    gate.set()
    wait_until(lambda: run.manager.poll() or heard, "the callback heard of the checkpoint")
    run.manager.finish()
    assert heard == [(1, "", True)]


def test_rotation_comes_after_completion(tmp_path, gate):
    gate.set()
    run = in_background(tmp_path, keep=1)
    run.manager.save(1)
    run.manager.finish()
    gate.clear()
    run.manager.save(2)
    assert names(tmp_path) == ["checkpoint-000001"]
    gate.set()
    run.manager.finish()
    assert names(tmp_path) == ["checkpoint-000002"]


def test_an_error_surfaces_at_the_end(tmp_path, monkeypatch):
    run = in_background(tmp_path)
    run.manager.save(1)
    run.manager.finish()
    full_disk(monkeypatch, {2})
    run.manager.save(2)
    with pytest.raises(CheckpointWriteError, match=r"checkpoint-000002: the checkpoint could not be written: No space"):
        run.manager.finish()
    assert os.listdir(tmp_path) == ["checkpoint-000001"]
    toy_run(tmp_path).load(tmp_path / "checkpoint-000001")


def test_an_error_does_not_keep_the_next_state_from_being_saved(tmp_path, monkeypatch):
    run = in_background(tmp_path)
    full_disk(monkeypatch, {2})
    run.manager.save(2)
    run.steps(1, 3)
    with pytest.raises(CheckpointWriteError) as raised:
        run.manager.save(3)
    assert "checkpoint-000002: the checkpoint could not be written: No space" in str(raised.value)
    assert "checkpoint-000003: the run ends for that; its state after step 3 is saved" in str(raised.value)
    resumed = toy_run(tmp_path)
    assert resumed.load(tmp_path / "checkpoint-000003") == 3
    assert_same(resumed.fingerprint(), run.fingerprint())


def test_when_the_next_state_cannot_be_saved_either_the_error_is_its_own(tmp_path, monkeypatch):
    run = in_background(tmp_path)
    full_disk(monkeypatch, {2, 3})
    run.manager.save(2)
    with pytest.raises(CheckpointWriteError, match="checkpoint-000003: the checkpoint could not be written") as raised:
        run.manager.save(3)
    assert "checkpoint-000002" in str(raised.value.__cause__)
    assert os.listdir(tmp_path) == []


def test_the_last_checkpoint_must_be_there_also_when_errors_are_skipped_and_nothing_is_in_the_background(
    tmp_path, monkeypatch
):
    run = toy_run(tmp_path)
    run.manager = manager_of(run.method.cfg, skip_errors=True)
    run.manager.attach(run.method, run.callbacks, run.loader)
    full_disk(monkeypatch, {1, 3})
    run.manager.save(1)
    run.manager.save(2)
    run.manager.finish()
    run.manager.save(3)
    with pytest.raises(CheckpointWriteError, match="checkpoint-000003"):
        run.manager.finish()


def test_a_skipped_error_is_logged_while_training_goes_on(tmp_path, monkeypatch, caplog):
    run = in_background(tmp_path, skip_errors=True)
    full_disk(monkeypatch, {1})
    run.manager.save(1)
    wait_until(lambda: run.manager.poll() or "checkpoint-000001" in caplog.text, "the error in the log")
    run.manager.poll()
    run.manager.save(2)
    run.manager.finish()
    assert caplog.text.count("training goes on") == 1
    assert not run.manager.poll()


def test_errors_may_be_skipped_with_a_count_but_not_the_last_one(tmp_path, monkeypatch, caplog):
    run = in_background(tmp_path, skip_errors=True)
    full_disk(monkeypatch, {1, 2, 4})
    for step in (1, 2, 3, 4):
        run.manager.save(step)
    with pytest.raises(CheckpointWriteError, match="checkpoint-000004"):
        run.manager.finish()
    assert names(tmp_path) == ["checkpoint-000003"]
    assert "checkpoints that could not be written: 2" in caplog.text
    assert "training goes on (training.on_checkpoint_error: skip)" in caplog.text


def test_a_step_whose_checkpoint_failed_is_saved_when_asked_for_again(tmp_path, monkeypatch):
    run = toy_run(tmp_path)
    run.manager = manager_of(run.method.cfg, skip_errors=True)
    run.manager.attach(run.method, run.callbacks, run.loader)
    with monkeypatch.context() as patch:
        full_disk(patch, {1})
        run.manager.save(1)
        assert names(tmp_path) == []
    run.manager.save(1)
    assert names(tmp_path) == ["checkpoint-000001"]


def test_a_read_only_folder_is_one_clear_error(tmp_path, monkeypatch):
    run = in_background(tmp_path)

    def refuse(path, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    run.manager.save(1)
    with pytest.raises(CheckpointWriteError) as error:
        run.manager.finish()
    assert "checkpoint-000001: the checkpoint could not be written: Read-only file system" in str(error.value)
    assert "fix: free space or make the folder writable; earlier checkpoints are intact" in str(error.value)


def test_a_finished_save_leaves_no_thread_that_python_would_abort_at_its_end(tmp_path):
    run = in_background(tmp_path)
    run.manager.save(1)
    run.manager.finish()
    assert not [thread for thread in threading.enumerate() if thread.name == "fastvideo-checkpoint"]


def test_an_error_elsewhere_lets_the_checkpoint_be_completed(tmp_path, gate):
    run = in_background(tmp_path)
    run.manager.save(1)
    threading.Timer(0.1, gate.set).start()
    run.manager.abandon()
    assert names(tmp_path) == ["checkpoint-000001"]


@pytest.mark.slow
def test_a_kill_at_thirty_random_moments_leaves_the_newest_complete_checkpoint_loadable(tmp_path):
    """A forked run saves after every step; how far it had come is told through a pipe before each save."""
    moments = random.Random(0)
    killed_while_writing = 0
    for attempt in range(30):
        folder = tmp_path / str(attempt)
        run = in_background(folder, keep=2, networks={"student": torch.nn.Linear(3, 40_000)})
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            _save_for_ever(run, writer)
        os.close(writer)
        os.read(reader, 1)  # the first checkpoint is complete
        time.sleep(moments.uniform(0, 0.4))
        if attempt % 2:
            _stop_while_it_writes(pid, folder)
        os.kill(pid, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        os.close(reader)
        killed_while_writing += any(path.name.startswith(".") for path in folder.iterdir())
        latest = storage.resolve_checkpoint(folder)
        step = storage.read_document(latest).step
        again = toy_run(folder, networks={"student": torch.nn.Linear(3, 40_000)})
        assert again.load(choose("latest", folder).path) == step
        assert again.loader.position == step
        assert len(again.method.history) == step
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert killed_while_writing >= 15


def _stop_while_it_writes(pid: int, folder: Path) -> None:
    """A process that is stopped with a half-written checkpoint stays so until it is killed."""

    def stopped() -> bool:
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "it is stopped")
        if any(path.name.startswith(".") for path in folder.iterdir()):
            return True
        os.kill(pid, signal.SIGCONT)
        return False

    wait_until(stopped, "a checkpoint that is being written")


def _save_for_ever(run: ToyRun, pipe: int) -> None:
    torch.set_num_threads(1)  # a forked process has none of the pool's threads
    try:
        batches = iter(run.loader)
        for step in range(1, 10_000):
            loss, outputs, _ = run.method.single_train_step(next(batches), step)
            run.method.backward(loss, outputs)
            run.method.optimizers_schedulers_step(step)
            run.method.optimizers_zero_grad(step)
            run.manager.save(step)
            if step == 1:
                run.manager.finish()
                os.write(pipe, b"x")
    finally:
        os._exit(1)
