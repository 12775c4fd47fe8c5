"""A run's folder belongs to one run at a time, lies apart from what it reads, and nothing is written through links in it."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastvideo_core.dispatch.output_dir import LOCK, alone_in, output_problems
from fastvideo_core.dispatch.started import write_whole
from fastvideo_core.errors import ConfigError
from fastvideo_core.tracking.jsonl import JsonlTracker
from fastvideo_testing.runs import load_config, toy_world

from ..checkpoint.toy_run import toy_run

# --- one run at a time ------------------------------------------------------------------------------------------------


@contextmanager
def another_process(folder: Path, alone=alone_in, *, with_worker: bool = False) -> Iterator[int]:
    """Holds the folder as a run does; with a process of its own that outlives it."""
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        with alone(folder):
            worker = os.fork() if with_worker else os.getpid()
            if worker:
                os.write(tell, worker.to_bytes(4, "big"))
            signal.pause()
        os._exit(0)
    worker = int.from_bytes(os.read(ready, 4), "big")
    try:
        yield pid
    finally:
        os.kill(worker, signal.SIGKILL)
        if worker != pid:
            end(pid)
        else:
            os.waitpid(pid, 0)


def end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def test_a_second_run_is_refused_and_told_who_the_first_is(tmp_path):
    with another_process(tmp_path / "run") as pid, pytest.raises(ConfigError) as error, alone_in(tmp_path / "run"):
        pass
    assert f"another run is going on in it: process {pid} on " in str(error.value)
    assert "wait for its end, stop it, or name another output_dir" in str(error.value)
    with alone_in(tmp_path / "run"):
        assert f"process {os.getpid()} on" in (tmp_path / "run" / LOCK).read_text()


def test_the_lock_dies_with_its_process_also_where_workers_of_it_live_on(tmp_path):
    with another_process(tmp_path, with_worker=True) as pid:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with alone_in(tmp_path):
            pass


def test_the_folder_is_free_after_the_run_whatever_ended_it(tmp_path):
    with pytest.raises(RuntimeError), alone_in(tmp_path):
        raise RuntimeError
    with another_process(tmp_path):
        pass


def test_what_does_not_write_leaves_nothing_and_waits_for_nobody_but_is_refused_beside_a_run(tmp_path):
    with alone_in(tmp_path / "run", writes=False):
        assert not (tmp_path / "run").exists()
    with another_process(tmp_path), pytest.raises(ConfigError), alone_in(tmp_path, writes=False):
        pass


def test_a_file_system_without_locks_is_no_reason_not_to_train(tmp_path, monkeypatch, caplog):
    def refuses(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refuses)
    with alone_in(tmp_path):
        pass
    assert f"{LOCK} cannot be locked (No locks available)" in caplog.text


# --- apart from what the run reads ------------------------------------------------------------------------------------


def config(folder: Path, output_dir: Path, **paths: Path | None):
    training = {"output_dir": str(output_dir), "max_train_steps": 1, "train_batch_size": 1, "learning_rate": 1e-3}
    role = {"path": str(paths.get("role") or "toy/base"), "trainable": True}
    if paths.get("data") is not None:
        training["data_path"] = str(paths["data"])
    if paths.get("source") is not None:
        training["data_path"] = [{"path": str(folder)}, {"path": str(paths["source"])}]
    run = {"recipe": {"family": "toy", "method": "toy"}, "roles": {"student": role}, "training": training}
    run["roles"]["teacher"] = {"path": "toy/base", "trainable": False}
    with toy_world():
        return load_config(folder, run)


@pytest.mark.parametrize("read", ["data", "source", "role"])
@pytest.mark.parametrize(("place", "word"), [("", "is"), ("sub", "lies in"), ("sub/deeper", "lies in")])
@pytest.mark.parametrize("linked", ["", "output_dir", "read"])
def test_an_output_dir_in_what_the_run_reads_is_refused(tmp_path, read, place, word, linked):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    output_dir = (tmp_path / "link" if linked == "output_dir" else folder) / place
    cfg = config(tmp_path, output_dir, **{read: tmp_path / "link" if linked == "read" else folder})
    keys = {"data": "training.data_path", "source": "training.data_path[1].path", "role": "roles.student.path"}
    key = keys[read]
    *_, problem = output_problems(cfg)
    assert f"training.output_dir {output_dir} {word} {key} (" in problem.found


def test_neighbours_and_data_inside_of_the_output_dir_are_fine(tmp_path):
    for name in ("data", "data2", "run/data"):
        (tmp_path / name).mkdir(parents=True)
    assert output_problems(config(tmp_path, tmp_path / "data2", data=tmp_path / "data")) == []
    assert output_problems(config(tmp_path, tmp_path / "run", data=tmp_path / "run" / "data")) == []


# --- links ------------------------------------------------------------------------------------------------------------

NAMES = ["metrics.jsonl", "run.yaml", "environment.json", LOCK, "validation", "tensorboard", "profile", "wandb"]


@pytest.mark.parametrize(
    "name", [*NAMES, "wandb/run-id.txt", "validation/step-000002", "validation/step-000002/00.mp4"]
)
@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_where_the_run_would_write_is_refused(tmp_path, name, dangling):
    link = tmp_path / "run" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "nowhere" if dangling else tmp_path)
    (problem,) = output_problems(config(tmp_path, tmp_path / "run"))
    assert f"there are links where the run would write: {name} -> " in problem.found


def test_an_output_dir_that_is_a_link_and_links_of_others_are_fine(tmp_path):
    (tmp_path / "scratch" / "wandb").mkdir(parents=True)
    (tmp_path / "scratch" / "mine").symlink_to(tmp_path)
    (tmp_path / "scratch" / "wandb" / "latest-run").symlink_to(tmp_path)  # wandb's own
    (tmp_path / "run").symlink_to(tmp_path / "scratch")
    assert output_problems(config(tmp_path, tmp_path / "run")) == []
    with alone_in(tmp_path / "run"):
        assert (tmp_path / "scratch" / LOCK).exists()


@pytest.fixture
def precious(tmp_path):
    """What a planted link leads to; unharmed at the end."""
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "file").write_text('{"step": 1}\nhalf a line')
    yield folder
    assert [path.name for path in folder.iterdir()] == ["file"]
    assert (folder / "file").read_text() == '{"step": 1}\nhalf a line'


def test_the_lock_is_not_written_through_a_link(tmp_path, precious):
    (tmp_path / LOCK).symlink_to(precious / "file")
    with pytest.raises(ConfigError, match="is a link"), alone_in(tmp_path):
        pass


def test_the_log_is_not_written_through_a_link(tmp_path, precious):
    log = tmp_path / "metrics.jsonl"
    log.symlink_to(precious / "file")
    with pytest.raises(OSError, match="symbolic link"):
        JsonlTracker(log)
    log.unlink()
    tracker = JsonlTracker(log)
    tracker.log({"loss": 1.0}, 1)
    tracker.log({"loss": 1.0}, 2)
    (tmp_path / ".metrics.jsonl.tmp").symlink_to(precious / "file")
    tracker.resume_after(1)
    tracker.finish()
    assert log.read_text() == '{"step": 1, "loss": 1.0}\n'


def test_whole_files_are_not_written_through_links(tmp_path, precious):
    for name in (".run.yaml.tmp", "run.yaml"):
        (tmp_path / name).symlink_to(precious / "file")
    write_whole(tmp_path / "run.yaml", "a: 1\n")
    assert not (tmp_path / "run.yaml").is_symlink()


def test_a_checkpoint_is_not_written_through_links(tmp_path, precious):
    (tmp_path / "run").mkdir()
    run = toy_run(tmp_path / "run", keep=1)
    for name in (".checkpoint-000001.tmp", ".checkpoint-000001.replaced", "checkpoint-000001"):
        (tmp_path / "run" / name).symlink_to(precious)
    run.manager.save(1)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint-000001"]
    assert not (tmp_path / "run" / "checkpoint-000001").is_symlink()
    (tmp_path / "run" / ".checkpoint-000007.tmp").symlink_to(precious)
    toy_run(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint-000001"]
