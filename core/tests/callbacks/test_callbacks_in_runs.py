"""Callbacks in whole runs: averages with the kit, ending a run, and a callback that is missing or new at resume."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fastvideo_core import Callback, PluginConfig, hookimpl, register_callback
from fastvideo_core.errors import CheckpointError
from fastvideo_testing import CallbackPluginSuite, build_run, toy_world


class CountConfig(PluginConfig):
    ends_at: int = 0


class Count(Callback):
    """Counts steps, and ends the run when there are enough."""

    config: CountConfig
    steps = 0

    @hookimpl
    def step_end(self) -> None:
        self.steps += 1

    @hookimpl
    def stop_requested(self) -> bool:
        return self.steps == self.config.ends_at

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


class TestEMA(CallbackPluginSuite):
    plugin = "ema"


@pytest.fixture(autouse=True)
def _toys() -> Iterator[None]:
    with toy_world():
        register_callback("count", config=CountConfig)(Count)
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


def test_core_s_own_spec_and_configuration_import_no_torch() -> None:
    code = (
        "import sys, fastvideo_core.callbacks.plugin as p, fastvideo_core.callbacks.config; "
        "assert 'torch' not in sys.modules; print(p.EMA.name)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["ema"]


def test_a_callback_ends_a_run_like_its_last_step(tmp_path: Path) -> None:
    build_run(tmp_path, run_of(tmp_path, {"count": {"ends_at": 2}}, max_train_steps=50, logging_steps=7)).train()
    assert [line["step"] for line in metrics_of(tmp_path)] == [2]
    assert (tmp_path / "out" / "checkpoint-000002").is_dir()


def test_a_callback_that_is_missing_at_resume_is_an_error_that_can_be_waived(tmp_path: Path) -> None:
    build_run(tmp_path, run_of(tmp_path, {"count": {}, "ema": {"decay": 0.5}})).train()
    longer = {"max_train_steps": 8, "resume_from_checkpoint": "latest"}
    with pytest.raises(CheckpointError) as raised:
        build_run(tmp_path, run_of(tmp_path, {"ema": {"decay": 0.5}}, **longer)).train()
    assert "the checkpoint holds the state of callback 'count', which this run does not have" in str(raised.value)
    assert "or set training.resume_without_callbacks: [count] to drop its state" in str(raised.value)
    waived = {**longer, "resume_without_callbacks": ["count"]}
    build_run(tmp_path, run_of(tmp_path, {"ema": {"decay": 0.5}}, **waived)).train()
    assert metrics_of(tmp_path)[-1]["step"] == 8


def test_a_callback_that_is_new_at_resume_is_an_error_that_can_be_waived(tmp_path: Path) -> None:
    build_run(tmp_path, run_of(tmp_path, {})).train()
    longer = {"max_train_steps": 8, "resume_from_checkpoint": "latest"}
    with pytest.raises(CheckpointError, match=r"or set training\.resume_without_callbacks: \[count\] to start it"):
        build_run(tmp_path, run_of(tmp_path, {"count": {}}, **longer)).train()
    waived = {**longer, "resume_without_callbacks": ["count"]}
    runtime = build_run(tmp_path, run_of(tmp_path, {"count": {}}, **waived))
    runtime.train()
    assert runtime.callbacks.callbacks["count"].steps == 2


def test_averages_that_are_new_at_resume_start_from_the_weights_of_the_checkpoint(tmp_path: Path) -> None:
    first = build_run(tmp_path, run_of(tmp_path, {}))
    first.train()
    trained = {name: p.detach().clone() for name, p in first.method.bundle["student"].named_parameters()}
    waived = {"max_train_steps": 7, "resume_from_checkpoint": "latest", "resume_without_callbacks": ["ema"]}
    again = build_run(tmp_path, run_of(tmp_path, {"ema": {"decay": 0.75}}, **waived))
    again.train()
    averages = again.callbacks.callbacks["ema"].state_dict()["shadow"]["student"]["transformer"]
    for name, weight in again.method.bundle["student"].named_parameters():
        expected = 0.75 * trained[name] + 0.25 * weight.detach()
        torch.testing.assert_close(averages[name.removeprefix("transformer.")], expected)
        assert not torch.equal(trained[name], weight)
