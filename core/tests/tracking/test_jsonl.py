from __future__ import annotations

import json
import math
import os
import resource
import signal

import pytest

from fastvideo_core.tracking.jsonl import JsonlTracker


def records(path) -> list[dict]:
    def no_constant(name: str):
        raise AssertionError(f"{name} is not JSON")

    return [json.loads(line, parse_constant=no_constant) for line in path.read_text().splitlines()]


def test_every_step_is_one_line_on_disk_at_once(tmp_path):
    tracker = JsonlTracker(tmp_path / "run" / "metrics.jsonl")
    tracker.log({"loss": 0.5, "lr": 1e-6}, 3)
    assert records(tmp_path / "run" / "metrics.jsonl") == [{"step": 3, "loss": 0.5, "lr": 1e-6}]


def test_what_is_not_finite_is_valid_json_that_float_reads_back(tmp_path):
    JsonlTracker(tmp_path / "m.jsonl").log({"a": math.nan, "b": math.inf, "c": -math.inf}, 1)
    (record,) = records(tmp_path / "m.jsonl")
    assert record == {"step": 1, "a": "nan", "b": "inf", "c": "-inf"}
    assert math.isnan(float(record["a"]))
    assert float(record["c"]) == -math.inf


def test_floats_keep_every_bit(tmp_path):
    JsonlTracker(tmp_path / "m.jsonl").log({"loss": 1 / 3}, 1)
    assert records(tmp_path / "m.jsonl")[0]["loss"] == 1 / 3


@pytest.mark.parametrize("tail", ['{"step": 3, "lo', '{"step": 3}', "\0\0"])
def test_a_half_written_last_line_is_cut_off(tmp_path, tail):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n' + tail)
    JsonlTracker(path).log({}, 3)
    assert [record["step"] for record in records(path)] == [1, 2, 3]


def test_what_was_logged_survives_a_kill(tmp_path):
    path = tmp_path / "m.jsonl"
    pid = os.fork()
    if pid == 0:
        tracker = JsonlTracker(path)
        for step in range(1, 6):
            tracker.log({"loss": 1.0}, step)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert [record["step"] for record in records(path)] == [1, 2, 3, 4, 5]


def test_a_line_that_the_disk_takes_in_part_leaves_nothing_behind(tmp_path):
    path = tmp_path / "m.jsonl"
    tracker = JsonlTracker(path)
    tracker.log({"loss": 1.0}, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, before[1]))  # room for 10 bytes more
    try:
        with pytest.raises(OSError, match="File too large"):
            tracker.log({"loss": 1.0}, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    tracker.log({"loss": 1.0}, 3)
    assert [record["step"] for record in records(path)] == [1, 3]


def test_a_resumed_run_has_each_step_once(tmp_path):
    path = tmp_path / "m.jsonl"
    first = JsonlTracker(path)
    for step in range(1, 8):
        first.log({"run": 1}, step)
    second = JsonlTracker(path)
    second.resume_after(4)
    for step in range(5, 9):
        second.log({"run": 2}, step)
    assert [(record["step"], record["run"]) for record in records(path)] == [
        (s, 1 if s <= 4 else 2) for s in range(1, 9)
    ]
    assert os.listdir(tmp_path) == ["m.jsonl"]


def test_a_new_run_in_an_old_folder_keeps_the_old_metrics_aside(tmp_path, caplog):
    for run in range(3):
        tracker = JsonlTracker(tmp_path / "metrics.jsonl")
        tracker.resume_after(0)
        tracker.log({"run": run}, 1)
    assert sorted(os.listdir(tmp_path)) == ["metrics.1.jsonl", "metrics.2.jsonl", "metrics.jsonl"]
    assert records(tmp_path / "metrics.2.jsonl")[0]["run"] == 1
    assert records(tmp_path / "metrics.jsonl")[0]["run"] == 2
    assert "the metrics of an earlier run in this folder are kept as" in caplog.text


def test_finishing_twice_is_harmless(tmp_path):
    tracker = JsonlTracker(tmp_path / "m.jsonl")
    tracker.finish()
    tracker.finish()
