"""Throughput, gradient norms, the profiler and early stop: with the kit, and what each is for."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from fastvideo_core.distributed.context import Mesh
from fastvideo_core.errors import ConfigError
from fastvideo_testing import CallbackPluginSuite, build_run, toy_world
from fastvideo_tools.callbacks.config import EarlyStopConfig, ThroughputConfig
from fastvideo_tools.callbacks.early_stop import EarlyStopCallback
from fastvideo_tools.callbacks.throughput import ThroughputCallback


class TestThroughput(CallbackPluginSuite):
    plugin = "throughput"


class TestProfiler(CallbackPluginSuite):
    plugin = "profiler"
    config: ClassVar[dict[str, int]] = {"skip": 1, "steps": 2}


class TestEarlyStop(CallbackPluginSuite):
    plugin = "early_stop"
    config: ClassVar[dict[str, int]] = {"every": 3}
    steps = 8


class TestGradNorm(CallbackPluginSuite):
    plugin = "grad_norm"


@pytest.fixture(autouse=True)
def _toys() -> Iterator[None]:
    with toy_world():
        yield


def run_of(folder: Path, callbacks: dict[str, Any], **training: Any) -> dict[str, Any]:
    return {
        "recipe": {"family": "toy", "method": "toy"},
        "roles": {
            "student": {"path": "toy/student", "trainable": True},
            "teacher": {"path": "toy/teacher", "trainable": False},
        },
        "training": {
            "output_dir": str(folder / "out"),
            "max_train_steps": 6,
            "train_batch_size": 2,
            "learning_rate": 1e-3,
            **training,
        },
        "callbacks": callbacks,
    }


def metrics_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "out" / "metrics.jsonl").read_text().splitlines()]


def test_throughput_is_logged_from_the_second_step_on(tmp_path: Path) -> None:
    build_run(tmp_path, run_of(tmp_path, {"throughput": {"every": 2}})).train()
    lines = metrics_of(tmp_path)
    logged = [line["step"] for line in lines if "throughput/seconds_per_step" in line]
    assert logged == [2, 4, 6]
    last = lines[-1]
    rate = last["throughput/samples_per_second"]
    assert rate == pytest.approx(2 / last["throughput/seconds_per_step"])


def test_validation_is_no_part_of_the_throughput(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 101.0, 102.0])  # a step's end, then 100 s of validation, then the next step's end
    monkeypatch.setattr("fastvideo_tools.callbacks.throughput.time.perf_counter", lambda: next(now))
    callback = ThroughputCallback(ThroughputConfig())
    monkeypatch.setattr("fastvideo_tools.callbacks.throughput.context.world_size", lambda: 4)
    training = SimpleNamespace(train_batch_size=3, gradient_accumulation_steps=2)
    method: Any = SimpleNamespace(cfg=SimpleNamespace(training=training), mesh=Mesh(data_rank=0, data_size=2))
    metrics: dict[str, Any] = {}
    callback.step_end(method, 1, {})
    callback.validation_start()
    callback.validation_end()
    callback.step_end(method, 2, metrics)
    assert metrics["throughput/seconds_per_step"] == pytest.approx(2.0)
    assert metrics["throughput/samples_per_second"] == pytest.approx(6.0)
    assert metrics["throughput/samples_per_second_per_process"] == pytest.approx(1.5)  # each two share theirs


def test_the_profiler_writes_one_trace_of_the_steps_that_were_asked_for(tmp_path: Path) -> None:
    build_run(tmp_path, run_of(tmp_path, {"profiler": {"skip": 2, "steps": 3}})).train()
    (trace,) = (tmp_path / "out" / "profile").iterdir()
    assert trace.name == "steps-000003-000005-rank-0.json.gz"
    with gzip.open(trace, "rt") as file:
        names = [event.get("name", "") for event in json.load(file)["traceEvents"]]
    assert sum(name.startswith("Optimizer.step") for name in names) == 3


def test_a_run_that_ends_while_it_is_profiled_keeps_its_trace(tmp_path: Path) -> None:
    build_run(tmp_path, run_of(tmp_path, {"profiler": {"skip": 4, "steps": 50}})).train()
    assert [path.name for path in (tmp_path / "out" / "profile").iterdir()] == ["steps-000005-000006-rank-0.json.gz"]


def test_a_profiler_that_would_record_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        build_run(tmp_path, run_of(tmp_path, {"profiler": {"skip": 6, "ranks": [0, 2]}}))
    assert "callbacks.profiler.skip: nothing would be recorded: the run has 6 steps, and 6 are skipped" in str(
        raised.value
    )
    assert "callbacks.profiler.ranks[1]: this run has no process 2\n" in str(raised.value)


def stopped(values: list[float], **config: Any) -> int | None:
    """The step after which early stop ends a run with these values of the metric."""
    callback = EarlyStopCallback(EarlyStopConfig(**config))
    for step, value in enumerate(values, 1):
        callback.step_end(None, step, {"total_loss": value})  # type: ignore[arg-type]
        if callback.stop_requested(step):
            return step
    return None


@pytest.mark.parametrize(
    ("values", "config", "step"),
    [
        ([5, 4, 3, 2, 1, 0], {"every": 1, "patience": 2}, None),
        ([5, 4, 4, 4, 3], {"every": 1, "patience": 2}, 4),
        ([5, 4, 3.99, 3.98, 3], {"every": 1, "patience": 2, "min_delta": 0.1}, 4),
        ([1, 2, 3, 3, 3], {"every": 1, "patience": 2, "mode": "max"}, 5),
        ([5, float("nan"), float("inf"), 1], {"every": 1, "patience": 2}, 3),
        ([4, 6, 4, 6, 4, 6], {"every": 2, "patience": 2}, 6),  # means of 5
        ([1, 9, 9, 9, 9, 9], {"every": 1, "patience": 2, "start_step": 3}, 6),
    ],
)
def test_early_stop_ends_after_patience_looks_without_an_improvement(
    values: list[float], config: dict[str, Any], step: int | None
) -> None:
    assert stopped(values, **config) == step


def test_early_stop_ends_a_run_like_its_last_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    callbacks = {"early_stop": {"every": 1, "patience": 1, "min_delta": 1e9}}
    with caplog.at_level("INFO", "fastvideo_tools"):
        build_run(tmp_path, run_of(tmp_path, callbacks, max_train_steps=50, logging_steps=7)).train()
    assert [line["step"] for line in metrics_of(tmp_path)] == [2]
    assert (tmp_path / "out" / "checkpoint-000002").is_dir()
    assert "early stop after step 2: total_loss is " in caplog.text


def test_early_stop_on_a_metric_that_is_not_there_lists_those_that_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callbacks = {"early_stop": {"every": 2, "metric": "student_loss"}}
    with pytest.raises(ConfigError) as raised:
        build_run(tmp_path, run_of(tmp_path, callbacks)).train()
    assert "callbacks.early_stop.metric: there is no metric 'student_loss' in the steps up to 2" in str(raised.value)
    told = [text for text in caplog.messages if "there is no 'student_loss' in step 1 (it has " in text]
    assert len(told) == 1
    assert told[0].endswith("the run ends after step 2")
    assert "total_loss" in str(raised.value)
