"""Which process of a launch says why it failed, and which of them are there."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from fastvideo_core.launch import launcher

SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4"}


@pytest.fixture(params=["slurm", "torchrun"])
def launched(request, tmp_path, monkeypatch):
    """One of several processes; gives the file that they share."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv(launcher.LAUNCHER, raising=False)
    if request.param == "slurm":
        for name, value in SLURM.items():
            monkeypatch.setenv(name, value)
        return tmp_path / f"fastvideo-failed-{os.getuid()}-7-0-0"
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "0" / "error.json"))
    return tmp_path / "fastvideo-failed"


def says_so(started: float) -> bool:
    return launcher.report_error("error: broken", 1, started)


def test_one_process_of_a_launch_says_why_it_failed(launched):
    started = time.time() - 5
    assert [says_so(started) for _ in range(3)] == [True, False, False]


def test_every_launch_in_one_place_says_why_it_failed(launched):
    for launch in range(3):
        started = time.time() - 5
        assert says_so(started)
        assert not says_so(started)
        os.utime(launched, (0, started - 60 + launch))  # this launch is over


def test_a_note_behind_a_link_is_left_alone(launched, tmp_path):
    other = tmp_path / "other"
    other.write_text("precious")
    os.utime(other, (0, 0))
    launched.symlink_to(other)
    assert not says_so(time.time() - 5)
    assert says_so(time.time() + 5)
    assert other.read_text() == "precious"


@pytest.fixture
def own_launcher(tmp_path, monkeypatch):
    """What our launcher gives process 0; its folder."""
    monkeypatch.setenv(launcher.LAUNCHER, "1")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "run" / "attempt_0" / "0" / "error.json"))
    (tmp_path / "run" / "attempt_0").mkdir(parents=True)
    return tmp_path


def test_our_launcher_shows_what_the_first_process_said(own_launcher):
    assert launcher.reported_error(own_launcher) is None
    started = time.time() - 5
    assert not launcher.report_error("error: the data is missing", 2, started)
    assert not launcher.report_error("error: the connection is closed", 1, started)
    error = launcher.reported_error(own_launcher)
    assert error is not None
    assert (error.text, error.status) == ("error: the data is missing", 2)
    assert started < error.time <= time.time() + 1


def test_a_process_that_took_signals_and_is_gone_is_noticed(own_launcher):
    launcher.register_ready()
    assert launcher.ready_processes(own_launcher) == [os.getpid()]
    assert not launcher.has_ended_peer()
    with subprocess.Popen(["true"]) as other:
        other.wait()
    (own_launcher / "run" / "attempt_0" / f"ready-{other.pid}").touch()
    assert launcher.has_ended_peer()


def test_torch_s_own_error_files_do_not_tell_which_of_two_errors_in_one_second_was_first(tmp_path):
    """Why the notes are ours."""
    failures = {}
    for rank, (when, said) in enumerate({101.9: "Connection closed by peer", 101.1: "the data is missing"}.items()):
        file = tmp_path / f"{rank}.json"
        extra = {"py_callstack": said, "timestamp": str(int(when))}  # as record's handler writes it
        file.write_text(json.dumps({"message": {"message": said, "extraInfo": extra}}))
        failures[rank] = ProcessFailure(rank, 0, 1, str(file))
    _, shown = ChildFailedError("run", failures).get_first_failure()
    assert Path(shown.error_file).name == "0.json"
