from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import zlib

import pytest
import safetensors.torch
import torch

from fastvideo_core import PluginConfig
from fastvideo_core.callbacks.hooks import Callback, hookimpl
from fastvideo_core.checkpoint import storage
from fastvideo_core.checkpoint.storage import CheckpointWriteError, choose
from fastvideo_core.checkpoint.weights import read_role_weights
from fastvideo_core.dispatch.role_weights import find_checkpoint
from fastvideo_core.errors import CheckpointError, UserError

from .toy_run import assert_same, sign, toy_run


def steps_in(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_of_a_checkpoint(tmp_path):
    path = toy_run(tmp_path).steps(1, 2).manager.save(2)
    assert steps_in(tmp_path) == ["checkpoint-000002"]
    document = json.loads((path / "state.json").read_text())
    assert document["format"] == 4
    assert document["step"] == 2
    assert document["world_size"] == 1
    assert set(document["versions"]) == {"fastvideo-core", "torch", "toy"}
    tensors = [f"state/{section}-rank-00000.safetensors" for section in ("callbacks", "optimizers", "roles")]
    assert sorted(document["files"]) == ["rng/rank-00000.safetensors", "run.yaml", *tensors]
    for name, file in document["files"].items():
        assert file == {"size": (path / name).stat().st_size, "crc32": zlib.crc32((path / name).read_bytes())}
    own = (path / "state.json").read_bytes()
    assert json.loads((path / "state.json.sum").read_text()) == {"size": len(own), "crc32": zlib.crc32(own)}


def test_trained_weights_are_plain_safetensors_that_those_may_read_who_may_read_the_folder(tmp_path):
    run = toy_run(tmp_path).steps(1, 2)
    file = run.manager.save(2) / "state" / "roles-rank-00000.safetensors"
    weights = run.method.bundle["student"].modules["net"].state_dict()
    stored = safetensors.torch.load_file(file)
    assert_same({name: stored[f"roles.student.net.{name}"] for name in weights}, dict(weights))
    assert file.stat().st_mode & 0o777 == file.parent.stat().st_mode & 0o666


def test_saves_when_due_and_a_step_only_once(tmp_path):
    seen = []

    class Watcher(Callback):
        @hookimpl
        def checkpoint_saved(self, path, step):
            seen.append((path.name, step))

    run = toy_run(tmp_path, every=3, callbacks={"watcher": Watcher(PluginConfig())})
    assert [run.manager.is_due(step) for step in range(1, 7)] == [False, False, True] * 2
    run.manager.save(3)
    run.manager.save(6)
    run.manager.save(6)
    assert seen == [("checkpoint-000003", 3), ("checkpoint-000006", 6)]
    assert not toy_run(tmp_path / "never", every=0).manager.is_due(5)


def test_rotation_keeps_the_newest_and_never_removes_the_one_just_written(tmp_path):
    run = toy_run(tmp_path, keep=2)
    for step in (1, 2, 3):
        run.manager.save(step)
    assert steps_in(tmp_path) == ["checkpoint-000002", "checkpoint-000003"]
    other = toy_run(tmp_path, keep=2)
    other.manager.save(1)  # a run that went on from an earlier step
    assert steps_in(tmp_path) == ["checkpoint-000001", "checkpoint-000003"]


def test_nothing_is_removed_before_the_new_checkpoint_is_complete(tmp_path, monkeypatch):
    run = toy_run(tmp_path, keep=1)
    run.manager.save(1)
    monkeypatch.setattr(storage, "write_document", lambda *_: fail(errno.ENOSPC))
    with pytest.raises(CheckpointWriteError, match="could not be written: No space left on device"):
        run.manager.save(2)
    assert steps_in(tmp_path) == ["checkpoint-000001"]


def fail(number: int) -> None:
    raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("saved_before", [False, True])
def test_a_kill_at_any_moment_of_a_save_leaves_latest_whole(tmp_path, saved_before):
    """Kills a forked process at its n-th sync or rename, for every n, until one gets through."""
    for moment in range(1, 40):
        folder = tmp_path / str(moment)
        run = toy_run(folder, keep=1).steps(1, 1)
        run.manager.save(1)
        if saved_before:  # step 2 is replaced
            run.manager._args = run.manager._args.model_copy(update={"checkpoints_total_limit": 0})
            run.manager.save(2)
        torch.manual_seed(moment)
        run.steps(2, 2)
        run.manager._saved_step = None
        expected = {
            key: value.clone() for key, value in run.method.bundle["critic"].modules["net"].state_dict().items()
        }
        before = read_role_weights(folder, "critic", ema=False)["net"]
        status = forked(lambda run=run, moment=moment: (kill_at(moment), run.manager.save(2)))

        latest = choose("latest", folder).path  # before anything is cleaned up
        assert choose("latest", folder).step == int(latest.name[-6:])
        assert not saved_before or latest.name == "checkpoint-000002"
        again = toy_run(folder)
        assert all(name.startswith("checkpoint-") for name in steps_in(folder))
        weights = read_role_weights(latest, "critic", ema=False)["net"]
        assert same(weights, before) or same(weights, expected)
        again.load(latest)
        if status == 0:
            assert latest.name == "checkpoint-000002"
            assert same(weights, expected)
            break
        assert status == -signal.SIGKILL
    assert status == 0
    assert moment > 8


def same(one, other) -> bool:
    return all(torch.equal(one[key], other[key]) for key in other)


def forked(act) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            act()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_at(moment: int) -> None:
    calls = 0

    def counted(function):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    for name in ("fsync", "rename", "rmdir", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))


def test_a_full_disk_is_one_clear_error_and_costs_no_earlier_checkpoint(tmp_path):
    run = toy_run(tmp_path)
    run.manager.save(1)

    def save_with_little_space() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))  # bytes per file
        with pytest.raises(CheckpointWriteError) as error:
            run.manager.save(2)
        assert "the checkpoint could not be written: File too large" in str(error.value)
        assert "free space or make the folder writable; earlier checkpoints are intact" in str(error.value)
        assert error.value.exit_code == 1
        assert not isinstance(error.value, UserError)

    assert forked(save_with_little_space) == 0
    assert steps_in(tmp_path) == ["checkpoint-000001"]
    toy_run(tmp_path).load(tmp_path / "checkpoint-000001")


def test_a_refused_rename_brings_the_replaced_checkpoint_back(tmp_path, monkeypatch):
    toy_run(tmp_path).manager.save(1)
    run = toy_run(tmp_path)
    rename = os.rename
    monkeypatch.setattr(os, "rename", lambda a, b: fail(errno.EROFS) if str(a).endswith(".tmp") else rename(a, b))
    with pytest.raises(CheckpointWriteError, match="Read-only file system"):
        run.manager.save(1)
    assert steps_in(tmp_path) == ["checkpoint-000001"]
    assert storage.flaw(tmp_path / "checkpoint-000001") == ""


def test_a_flipped_bit_of_the_random_state_is_an_error_that_names_the_file(tmp_path):
    run = toy_run(tmp_path)
    path = run.manager.save(1) / "rng/rank-00000.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 4
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"rng/rank-00000\.safetensors was changed since it was written"):
        toy_run(tmp_path).load(tmp_path / "checkpoint-000001")


@pytest.mark.parametrize(
    "missing", ["state.json", "state/roles-rank-00000.safetensors", "run.yaml", "rng/rank-00000.safetensors"]
)
def test_latest_passes_over_an_incomplete_checkpoint_with_a_warning(tmp_path, missing, caplog):
    run = toy_run(tmp_path)
    run.manager.save(1)
    run.manager.save(2)
    (tmp_path / "checkpoint-000002" / missing).unlink()
    assert choose("latest", tmp_path).path.name == "checkpoint-000001"
    assert "checkpoint-000002 IS NOT WHOLE" in "".join(choose("latest", tmp_path).notes())
    assert missing in "".join(choose("latest", tmp_path).notes())
    assert storage.resolve_checkpoint(tmp_path).name == "checkpoint-000001"
    assert "checkpoint-000002 is passed over: it is not whole" in caplog.text
    with pytest.raises(CheckpointError, match="the checkpoint is not whole"):
        choose(tmp_path / "checkpoint-000002", tmp_path)


def test_a_truncated_file_is_noticed(tmp_path):
    path = toy_run(tmp_path).manager.save(1)
    os.truncate(path / "state" / "roles-rank-00000.safetensors", 10)
    with pytest.raises(CheckpointError, match=r"roles-rank-00000\.safetensors has 10 bytes instead of \d+"):
        toy_run(tmp_path).load(path)


def test_what_is_not_a_checkpoint_is_refused(tmp_path):
    output = tmp_path / "run"
    with pytest.raises(CheckpointError, match=r"(?s)no whole checkpoint in it.*start a new run without resuming"):
        choose("latest", output)
    with pytest.raises(CheckpointError, match="there is no such folder"):
        choose(tmp_path / "nowhere", output)
    (tmp_path / "other").mkdir()
    with pytest.raises(CheckpointError, match=r"(?s)this is not a checkpoint, and holds none.*checkpoint-<step>"):
        choose(tmp_path / "other", output)


def test_a_run_folder_means_its_newest_checkpoint(tmp_path):
    run = toy_run(tmp_path)
    run.manager.save(9)
    run.manager.save(10)
    assert choose(tmp_path, tmp_path).path.name == "checkpoint-000010"
    assert find_checkpoint(str(tmp_path)) == tmp_path / "checkpoint-000010"
    assert find_checkpoint(str(tmp_path / "checkpoint-000009")) == tmp_path / "checkpoint-000009"
    assert find_checkpoint(str(tmp_path / "checkpoint-000009" / "state")) is None


def rewrite(path, **changes) -> None:
    sign(path, json.dumps({**json.loads((path / "state.json").read_text()), **changes}).encode())


def test_another_format_names_the_version_that_reads_it(tmp_path):
    path = toy_run(tmp_path).manager.save(1)
    rewrite(path, format=9, versions={"fastvideo-core": "7.1"})
    with pytest.raises(CheckpointError, match=r"(?s)format 9, written by fastvideo-core 7\.1.*fastvideo-core==7\.1"):
        toy_run(tmp_path).load(path)


def test_another_number_of_processes_draws_new_noise_and_keeps_shared_streams(tmp_path, caplog):
    run = toy_run(tmp_path)
    run.method.rng.shared("exit_step")
    before = run.steps(1, 1).method.rng.state_dict()
    path = run.manager.save(1)
    rewrite(path, world_size=8)
    states = []
    for _ in range(2):
        other = toy_run(tmp_path)
        other.method.rng.shared("exit_step")
        assert other.load(path) == 1
        states.append(other.method.rng.state_dict())
        assert torch.equal(states[-1]["shared/exit_step"], before["shared/exit_step"])
        assert not torch.equal(states[-1]["local/noise"], before["local/noise"])
    assert torch.equal(states[0]["local/noise"], states[1]["local/noise"])
    assert "written by 8 processes and this run has 1" in caplog.text


@pytest.mark.parametrize("state", [{}, [], {"$tensor": "x"}, {"roles": {}, "optimizers": 3}])
def test_a_damaged_document_is_a_clear_error(tmp_path, state):
    path = toy_run(tmp_path).manager.save(1)
    rewrite(path, state=state)
    with pytest.raises(CheckpointError, match="its content cannot be understood"):
        toy_run(tmp_path).load(path)


def test_later_checkpoints_of_another_attempt_are_pointed_out(tmp_path, caplog):
    run = toy_run(tmp_path)
    for step in (1, 2):
        run.manager.save(step)
    toy_run(tmp_path).load(tmp_path / "checkpoint-000001")
    assert "going on from step 1" in caplog.text
    assert "later checkpoints (checkpoint-000002)" in caplog.text


def test_a_checkpoint_may_be_moved(tmp_path):
    path = toy_run(tmp_path / "a").steps(1, 2).manager.save(2)
    shutil.move(path, tmp_path / "elsewhere")
    assert toy_run(tmp_path / "b").load(tmp_path / "elsewhere") == 2


# --- damage -----------------------------------------------------------------------------------------------------------


def swapped(content: bytes, at: int, size: int) -> bytes:
    one, other = content[at : at + size], content[at + size : at + 2 * size]
    assert one != other
    return content[:at] + other + one + content[at + 2 * size :]


def flipped(content: bytes, *bits: int) -> bytes:
    changed = bytearray(content)
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


HARMS = {
    "two neighbouring words swapped": lambda content: swapped(content, 0, 8),
    "two sectors swapped": lambda content: swapped(content, 0, len(content) // 2 // 8 * 8),
    "the same bit of two words": lambda content: flipped(content, 31, 31 + 64),
    "one bit": lambda content: flipped(content, 4),
    "the end": lambda content: content[:-1] + bytes([content[-1] ^ 128]),
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize(
    "name",
    [
        "state/roles-rank-00000.safetensors",
        "state/optimizers-rank-00000.safetensors",
        "rng/rank-00000.safetensors",
        "run.yaml",
        "state.json",
        "state.json.sum",
    ],
)
def test_any_change_of_any_file_is_noticed_and_latest_goes_back_to_the_newest_whole_checkpoint(tmp_path, name, harm):
    run = toy_run(tmp_path)
    for step in (1, 2):
        run.steps(step, step).manager.save(step)
    path = tmp_path / "checkpoint-000002"
    (path / name).write_bytes(HARMS[harm]((path / name).read_bytes()))
    with pytest.raises(CheckpointError, match=rf"(?s)checkpoint-000002.*{name.removesuffix('.sum')}"):
        choose(path, tmp_path)
    choice = choose("latest", tmp_path)
    assert choice.path.name == "checkpoint-000001"
    (note,) = choice.notes()
    assert note.startswith(f"{path} IS NOT WHOLE: ")
    assert note.endswith(f"going on from {choice.path} instead")


def test_a_checkpoint_that_was_passed_over_is_kept_when_training_comes_to_its_step_again(tmp_path, caplog):
    run = toy_run(tmp_path).steps(1, 1)
    for step in (1, 2):
        run.manager.save(step)
    for kept in ("checkpoint-000002.damaged", "checkpoint-000002.damaged-2"):
        harmed = tmp_path / "checkpoint-000002" / "state" / "roles-rank-00000.safetensors"
        harmed.write_bytes(flipped(harmed.read_bytes(), 0))
        again = toy_run(tmp_path)
        again.manager.resumed = choose("latest", tmp_path)
        assert again.manager.resumed.step == 1
        assert steps_in(tmp_path)[-1] != kept, "choosing alone changes nothing"
        again.manager.attach(again.method, again.callbacks, again.loader)
        assert f"is kept as {kept}" in caplog.text
        again.manager.save(2)
        assert storage.flaw(tmp_path / "checkpoint-000002") == ""
        assert (tmp_path / kept).is_dir()
        assert choose("latest", tmp_path).passed_over == ()


def test_without_a_whole_checkpoint_all_are_named(tmp_path):
    run = toy_run(tmp_path)
    for step in (1, 2):
        path = run.manager.save(step)
        os.truncate(path / "state" / "roles-rank-00000.safetensors", 8)
    with pytest.raises(CheckpointError) as error:
        choose("latest", tmp_path)
    assert "there is no whole checkpoint in it" in str(error.value)
    for name in ("checkpoint-000001", "checkpoint-000002"):
        assert f"{name}: state/roles-rank-00000.safetensors has 8 bytes" in str(error.value)


def test_each_process_reads_a_share_of_the_files(tmp_path):
    path = toy_run(tmp_path).manager.save(1)
    (path / "run.yaml").write_bytes(b"x" * (path / "run.yaml").stat().st_size)
    found = [storage.flaw(path, slice(part, None, 3)) for part in range(3)]
    assert sorted(map(bool, found)) == [False, False, True]
    (path / "run.yaml").unlink()
    shares = [slice(part, None, 3) for part in range(3)]
    found = [storage.flaw(path, share, share) for share in shares]
    assert sorted(found) == ["", "", "run.yaml is missing"]


@pytest.mark.parametrize(
    "change",
    [
        {"step": -3},
        {"step": True},
        {"step": 1.5},
        {"world_size": "x"},
        {"world_size": 0},
        {"format": None},
        {"versions": {"torch": 2}},
        {"files": ["run.yaml"]},
        {"files": {"run.yaml": 1}},
        {"files": {"run.yaml": {"size": -1, "crc32": 1}}},
        {"files": {"run.yaml": {"size": 1}}},
        {"files": {"../run.yaml": {"size": 1, "crc32": 1}}},
        {"files": {"/run.yaml": {"size": 1, "crc32": 1}}},
        {"files": {"state/../../run.yaml": {"size": 1, "crc32": 1}}},
    ],
)
def test_a_list_that_cannot_be_is_an_error(tmp_path, change):
    path = toy_run(tmp_path).manager.save(1)
    rewrite(path, **change)
    with pytest.raises(
        CheckpointError, match=r"the checkpoint is not whole: state\.json is no valid checkpoint's list: "
    ):
        choose(path, tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff", b"null", b"[" * 100_000, b'{"step": ' + b"9" * 5000 + b"}"])
def test_a_list_that_is_none_is_one_message(tmp_path, content):
    path = toy_run(tmp_path).manager.save(1)
    sign(path, content)
    with pytest.raises(CheckpointError, match=r"the checkpoint is not whole: state\.json"):
        choose(path, tmp_path)


def test_a_checkpoint_of_an_earlier_format_is_one_message_that_says_what_to_do(tmp_path):
    path = toy_run(tmp_path).manager.save(1)
    rewrite(path, format=3, files={"run.yaml": 12}, sums={})
    for refused in (
        lambda: choose("latest", tmp_path),
        lambda: choose(path, tmp_path),
        lambda: read_role_weights(path, "critic", ema=False),
    ):
        with pytest.raises(CheckpointError, match=r"(?s)has format 3, written by.*allowed: format 4") as error:
            refused()
        assert "resume or export it with that version (pip install fastvideo-core==" in str(error.value)
        assert "), or start a new run" in str(error.value)


def test_a_list_without_its_sum_is_not_whole(tmp_path):
    path = toy_run(tmp_path).manager.save(1)
    (path / "state.json.sum").unlink()
    with pytest.raises(
        CheckpointError, match=r"not whole: state\.json is not what was written, by its sum \(state\.json\.sum\)"
    ):
        choose(path, tmp_path)


def test_role_weights_are_not_read_from_a_file_that_was_changed(tmp_path):
    path = toy_run(tmp_path).manager.save(1)
    file = path / "state" / "roles-rank-00000.safetensors"
    file.write_bytes(flipped(file.read_bytes(), 8 * file.stat().st_size - 1))
    with pytest.raises(CheckpointError, match=r"roles-rank-00000\.safetensors: was changed since it was written"):
        read_role_weights(path, "critic", ema=False)
