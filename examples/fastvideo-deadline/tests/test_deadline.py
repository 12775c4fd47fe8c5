"""The run ends when the time is over, and not before."""

import json

import pytest

from fastvideo_testing import build_run, toy_world


def steps_of(folder, minutes, **training):
    roles = {"student": {"path": "toy/a", "trainable": True}, "teacher": {"path": "toy/b", "trainable": False}}
    run = {
        "recipe": {"family": "toy", "method": "toy"},
        "roles": roles,
        "training": {"output_dir": str(folder / "out"), "max_train_steps": 5, **training},
        "callbacks": {"deadline": {"minutes": minutes}},
    }
    with toy_world():
        build_run(folder, run).train()
    return [json.loads(line)["step"] for line in (folder / "out" / "metrics.jsonl").read_text().splitlines()]


def test_a_run_ends_when_its_time_is_over(tmp_path):
    assert steps_of(tmp_path, minutes=1e-9) == [1]
    assert (tmp_path / "out" / "checkpoint-000001").is_dir()


def test_the_time_before_a_resume_counts(tmp_path, monkeypatch):
    clock = iter(range(0, 100_000, 10))  # ten seconds at every look
    monkeypatch.setattr("fastvideo_deadline.callback.time.monotonic", lambda: float(next(clock)))
    first = steps_of(tmp_path, minutes=0.4)
    assert first == [1, 2, 3]
    assert steps_of(tmp_path, minutes=0.4, resume_from_checkpoint="latest") == [1, 2, 3, 4]


@pytest.mark.parametrize("minutes", [60])
def test_a_run_with_time_left_goes_on(tmp_path, minutes):
    assert steps_of(tmp_path, minutes) == [1, 2, 3, 4, 5]
