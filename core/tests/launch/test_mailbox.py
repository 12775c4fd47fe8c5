"""Which process of a launch says why it failed."""

from __future__ import annotations

import os
import tempfile
import time

import pytest

from fastvideo_core.launch.mailbox import is_first_to_fail

SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4"}


@pytest.fixture(params=["slurm", "torchrun"])
def launched(request, tmp_path, monkeypatch):
    """One of several processes; gives the file that they share."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if request.param == "slurm":
        for name, value in SLURM.items():
            monkeypatch.setenv(name, value)
        return tmp_path / f"fastvideo-failed-{os.getuid()}-7-0-0"
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "0" / "error.json"))
    return tmp_path / "fastvideo-failed"


def test_one_process_of_a_launch_says_why_it_failed(launched):
    started = time.time() - 5
    assert [is_first_to_fail(started) for _ in range(3)] == [True, False, False]


def test_every_launch_in_one_place_says_why_it_failed(launched):
    for launch in range(3):
        started = time.time() - 5
        assert is_first_to_fail(started)
        assert not is_first_to_fail(started)
        os.utime(launched, (0, started - 60 + launch))  # this launch is over


def test_a_mark_behind_a_link_is_left_alone(launched, tmp_path):
    other = tmp_path / "other"
    other.write_text("precious")
    os.utime(other, (0, 0))
    launched.symlink_to(other)
    assert not is_first_to_fail(time.time() - 5)
    assert is_first_to_fail(time.time() + 5)
    assert other.read_text() == "precious"
