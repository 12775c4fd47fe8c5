"""`train`, `build_runtime` and `sample` from Python: what they give back, what they raise, and what they leave as it was."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastvideo_core import (
    Callback,
    PluginConfig,
    build_runtime,
    hookimpl,
    load_run_config,
    register_callback,
    sample,
    train,
)
from fastvideo_core.errors import ConfigError, RunStopped
from fastvideo_testing import toy_world


@pytest.fixture(autouse=True)
def _toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with toy_world():
        yield


def run_in(folder: str, steps: int = 3, **training: Any) -> dict[str, Any]:
    return {
        "recipe": {"family": "toy", "method": "toy"},
        "roles": {
            "student": {"path": "toy/student", "trainable": True},
            "teacher": {"path": "toy/teacher", "trainable": False},
        },
        "training": {"output_dir": folder, "max_train_steps": steps, "learning_rate": 1e-3, **training},
    }


def logged(folder: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]


def test_a_mapping_is_trained_and_its_logged_steps_come_back(capsys: pytest.CaptureFixture[str]) -> None:
    steps = train(run_in("a"))
    assert steps == logged("a")
    assert [step["step"] for step in steps] == [1, 2, 3]
    assert "step 3/3" in capsys.readouterr().out
    assert {"run.yaml", "environment.json", "checkpoint-000003"} <= set(os.listdir("a"))


def test_equal_runs_in_one_process_have_equal_losses_and_quiet_ones_say_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second = (train(run_in(folder), quiet=True) for folder in ("a", "b"))
    assert [step["total_loss"] for step in first] == [step["total_loss"] for step in second]
    assert capsys.readouterr().out == ""


def test_the_path_of_what_a_run_wrote_and_its_config_train_alike() -> None:
    losses = [step["total_loss"] for step in train(run_in("a"), quiet=True)]
    cfg = load_run_config(run_in("b"))
    assert [step["total_loss"] for step in train(cfg, quiet=True)] == losses
    text = Path("a/run.yaml").read_text().replace("output_dir: a", "output_dir: c")
    Path("again.yaml").write_text(text)
    assert [step["total_loss"] for step in train("again.yaml", quiet=True)] == losses


def test_what_becomes_of_a_mapping_later_does_not_change_its_config() -> None:
    run = run_in("a")
    run["roles"]["student"]["path"] = Path("toy/student")
    cfg = load_run_config(run)
    run["training"]["max_train_steps"] = 5
    assert cfg.training.max_train_steps == 3
    assert cfg.roles["student"].path == "toy/student"


def test_a_built_run_is_looked_at_and_then_trained_once() -> None:
    runtime = build_runtime(run_in("a"))
    assert not Path("a").exists()
    before = [parameter.clone() for _, parameter in runtime.method.bundle["student"].named_parameters()]
    assert len(train(runtime, quiet=True)) == 3
    after = [parameter for _, parameter in runtime.method.bundle["student"].named_parameters()]
    assert any((old != new).any() for old, new in zip(before, after, strict=True))
    with pytest.raises(ConfigError, match="already holds checkpoint-000003"):
        train(runtime)


def test_all_problems_of_a_mapping_are_raised_with_their_keys_and_no_file() -> None:
    run = run_in("a", learning_rat=1e-3) | {"method_config": {"guidance_scale": -1}}
    with pytest.raises(ConfigError) as caught:
        train(run)
    where = [problem.where for problem in caught.value.problems]
    assert sorted(where) == ["method_config.guidance_scale", "training.learning_rat"]
    with pytest.raises(ConfigError, match="recipe: missing"):
        train({})
    with pytest.raises(ConfigError, match="the run: this is a file of FastVideo's trainer"):
        train({"models": {"student": {"_target_": "a.b"}}, "method": {"_target_": "c.d"}})


def test_a_run_of_more_processes_than_there_are_says_how_to_start_them() -> None:
    with pytest.raises(ConfigError, match=r"(?s)num_gpus is 2, and this process is alone.*torchrun --nproc-per-node 2"):
        train(run_in("a", num_gpus=2))


def test_an_interrupted_run_is_raised_after_a_checkpoint_and_signals_are_as_before() -> None:
    @register_callback("interrupt", config=PluginConfig)
    class Interrupt(Callback):
        @hookimpl
        def step_end(self, step: int) -> None:
            if step == 2:
                os.kill(os.getpid(), signal.SIGINT)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    with pytest.raises(RunStopped, match=r"after step [23].*saved as checkpoint-"):
        train(run_in("a", steps=9) | {"callbacks": {"interrupt": {}}}, quiet=True)
    assert [signal.getsignal(number) for number in numbers] == before
    resumed = run_in("a", steps=4, resume_from_checkpoint="latest")
    assert train(resumed, quiet=True)[-1]["step"] == 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 0.5}, "sample: argument --steps: invalid whole number"),
        ({"sampler": "euler"}, "sample: argument --sampler: invalid choice: 'euler'"),
        ({"steps": 4, "timesteps": [1000, 500]}, "not allowed with argument"),
        ({"seed": -1}, "no whole number from 0"),
        ({"guidance": 2.0}, "sample: unrecognized arguments: --guidance=2.0"),
    ],
)
def test_options_of_sample_are_checked_as_on_the_command_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        sample("nowhere", "-a cat", **options)
