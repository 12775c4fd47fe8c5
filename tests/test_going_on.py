"""What a resumed run keeps, what it takes from run.yaml, and what must never be saved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from fastvideo_core.checkpoint.weights import read_role_weights
from fastvideo_core.errors import ConfigError, NonFiniteError, UserError
from fastvideo_testing.runs import build_run, toy_family


@pytest.fixture(autouse=True)
def _toy():
    with toy_family():
        yield


def finetune(folder: Path, steps: int, **training: Any) -> dict[str, Any]:
    return {
        "recipe": {"family": "toy", "method": "finetune"},
        "roles": {"student": {"path": "toy/base", "trainable": True}},
        "training": {"output_dir": str(folder), "max_train_steps": steps, "learning_rate": 1e-2, **training},
    }


def distil(folder: Path, teacher: Path, steps: int, **training: Any) -> dict[str, Any]:
    return {
        "recipe": {"family": "toy", "method": "dmd2"},
        "roles": {
            "student": {"path": "toy/base", "trainable": True},
            "teacher": {"path": str(teacher), "trainable": False},
            "critic": {"path": "toy/base", "trainable": True},
        },
        "training": {"output_dir": str(folder), "max_train_steps": steps, "learning_rate": 1e-2, **training},
        "method_config": {"generator_update_interval": 1},
    }


def weights(path: Path, role: str = "student") -> torch.Tensor:
    state = read_role_weights(path, role, ema=False)["transformer"]
    return torch.cat([value.flatten() for value in state.values()])


def test_a_resumed_distillation_keeps_the_teacher_that_it_started_with(tmp_path):
    teacher, run = tmp_path / "teacher", tmp_path / "run"
    build_run(tmp_path, finetune(teacher, 2)).train()
    first = build_run(tmp_path, distil(run, teacher, 2))
    first.train()
    build_run(tmp_path, finetune(teacher, 4, resume_from_checkpoint="latest")).train()

    resumed = build_run(tmp_path, distil(run, teacher, 3, resume_from_checkpoint="latest"))
    for (name, before), (_, now) in zip(
        first.method.teacher.named_parameters(), resumed.method.teacher.named_parameters(), strict=True
    ):
        assert torch.equal(before, now), name
    assert resumed.cfg.roles["teacher"].path == str((teacher / "checkpoint-000002").resolve())

    shutil.rmtree(teacher / "checkpoint-000002")
    with pytest.raises(
        UserError, match=r"roles\.teacher\.path: the run started with .*checkpoint-000002, which is gone"
    ):
        build_run(tmp_path, distil(run, teacher, 3, resume_from_checkpoint="latest"))


def test_a_checkpoint_can_be_used_from_another_folder(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    build_run(tmp_path, finetune(Path("teacher"), 2)).train()
    monkeypatch.chdir(tmp_path)
    run = finetune(tmp_path / "second", 1)
    run["roles"]["student"]["path"] = "a/teacher"
    runtime = build_run(tmp_path, run)
    started = torch.cat([p.detach().flatten() for _, p in runtime.method.student.named_parameters()])
    assert torch.equal(started, weights(tmp_path / "a" / "teacher"))
    runtime.train()
    saved = yaml.safe_load((tmp_path / "second" / "checkpoint-000001" / "run.yaml").read_text())
    assert saved["roles"]["student"]["path"] == str(tmp_path / "a" / "teacher" / "checkpoint-000002")


@pytest.mark.parametrize(("schedule", "rate"), [("constant", 1e-3), ("linear", 1e-3 * 8 / 10)])
def test_a_learning_rate_that_was_lowered_for_the_rest_of_the_run_counts(tmp_path, caplog, schedule, rate):
    run = finetune(tmp_path / "run", 10, lr_scheduler=schedule, training_state_checkpointing_steps=2)
    run["training"]["max_train_steps"] = 10
    build_run(tmp_path, run).train()
    for step in (4, 6, 8, 10):
        shutil.rmtree(tmp_path / "run" / f"checkpoint-{step:06d}")
    run["training"] |= {"learning_rate": 1e-3, "resume_from_checkpoint": "latest"}
    build_run(tmp_path, run).train()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 11))
    assert lines[2]["lr/student"] == pytest.approx(rate)
    assert "learning rate was 0.01 in the checkpoint; this run's configuration says 0.001, and counts" in caplog.text


def test_gradients_that_are_not_finite_are_never_saved_even_without_clipping(tmp_path, monkeypatch):
    runtime = build_run(
        tmp_path, finetune(tmp_path / "run", 3, max_grad_norm=0, logging_steps=100, max_skipped_steps=1)
    )
    original = runtime.method.backward

    def poisoned(loss_map, outputs, *, grad_accum_rounds=1):
        original(loss_map, outputs, grad_accum_rounds=grad_accum_rounds)
        for parameter in runtime.method.student.trainable_parameters():
            parameter.grad.fill_(float("nan"))

    monkeypatch.setattr(runtime.method, "backward", poisoned)
    before = torch.cat([p.detach().clone().flatten() for p in runtime.method.student.trainable_parameters()])
    with pytest.raises(
        NonFiniteError, match="grad_norm is nan, grad_norm/student is nan; 2 steps in a row were skipped"
    ):
        runtime.train()
    assert torch.equal(weights(tmp_path / "run"), before)


def test_a_new_run_does_not_write_over_an_old_one(tmp_path):
    build_run(tmp_path, finetune(tmp_path / "run", 1)).train()
    before = weights(tmp_path / "run")
    with pytest.raises(ConfigError, match="already holds checkpoint-000001"):
        build_run(tmp_path, finetune(tmp_path / "run", 1))
    assert torch.equal(weights(tmp_path / "run"), before)


def test_a_run_that_is_done_says_so_when_resumed(tmp_path):
    build_run(tmp_path, finetune(tmp_path / "run", 1)).train()
    with pytest.raises(ConfigError, match=r"the checkpoint is at step 1, and training\.max_train_steps is 1"):
        build_run(tmp_path, finetune(tmp_path / "run", 1, resume_from_checkpoint="latest"))


def test_a_recipe_family_that_no_role_uses_is_refused(tmp_path):
    run = finetune(tmp_path / "run", 1)
    run["recipe"]["family"] = "wan"
    run["roles"]["student"]["family"] = "toy"
    with pytest.raises(ConfigError, match="no role is of the family 'wan'"):
        build_run(tmp_path, run)


LORA = {"rank": 2, "alpha": 2, "targets": ["net.0"]}


def adapters(folder: Path, base: str, steps: int, lora: dict[str, Any] | None = None, **role: Any) -> dict[str, Any]:
    resume = {"resume_from_checkpoint": "latest"} if folder.exists() else {}
    run = finetune(folder, steps, **resume)
    run["roles"]["student"] |= {"path": base, "lora": lora or LORA, **role}
    return run


@pytest.mark.parametrize(
    ("lora", "had"),
    [({**LORA, "alpha": 64}, "rank 2 and alpha 64"), ({**LORA, "rank": 4, "alpha": 4}, "rank 4 and alpha 4")],
)
def test_adapters_do_not_go_on_with_another_rank_or_alpha(tmp_path, lora, had):
    build_run(tmp_path, adapters(tmp_path / "run", "toy/base", 1)).train()
    with pytest.raises(UserError) as raised:
        build_run(tmp_path, adapters(tmp_path / "run", "toy/base", 2, lora))
    text = str(raised.value)
    assert f"roles.student.lora: the checkpoint's adapters have rank 2 and alpha 2, this run's {had}" in text
    assert "go on with rank 2 and alpha 2, or start a new run with the checkpoint as the role's path" in text


def test_moments_do_not_go_on_with_another_optimizer(tmp_path):
    build_run(tmp_path, finetune(tmp_path / "run", 1)).train()
    text = r"training\.optimizer: the checkpoint's moments are those of adamw, not of muon"
    with pytest.raises(UserError, match=text):
        build_run(tmp_path, finetune(tmp_path / "run", 2, resume_from_checkpoint="latest", optimizer="muon"))


def test_an_alpha_that_is_left_out_is_the_rank(tmp_path):
    build_run(tmp_path, adapters(tmp_path / "run", "toy/base", 1)).train()
    build_run(tmp_path, adapters(tmp_path / "run", "toy/base", 2, {"rank": 2, "targets": ["net.0"]})).train()


def test_adapters_do_not_go_on_on_another_base(tmp_path):
    build_run(tmp_path, adapters(tmp_path / "run", "toy/base", 1)).train()
    with pytest.raises(UserError) as raised:
        build_run(tmp_path, adapters(tmp_path / "run", "toy/other", 2))
    text = str(raised.value)
    assert (
        "roles.student.path: the checkpoint's adapters were trained on toy/base; this run puts them on toy/other"
        in text
    )
    assert "go on with toy/base, or train new adapters in a new run" in text


def test_adapters_on_a_checkpoint_go_on_on_the_same_weights_of_it(tmp_path):
    base = finetune(tmp_path / "base", 2) | {"callbacks": {"ema": {"decay": 0.5}}}
    build_run(tmp_path, base).train()
    path, on = str(tmp_path / "base"), str(tmp_path / "base" / "checkpoint-000002")
    build_run(tmp_path, adapters(tmp_path / "run", path, 1)).train()
    with pytest.raises(UserError) as raised:
        build_run(tmp_path, adapters(tmp_path / "run", path, 2, weights="raw"))
    assert f"were trained on {on}; this run puts them on {on} weights: raw" in str(raised.value)
    build_run(tmp_path, adapters(tmp_path / "run", path, 2)).train()


def test_adapters_go_on_on_a_base_that_was_moved_and_the_log_says_so(tmp_path, caplog):
    build_run(tmp_path, finetune(tmp_path / "base", 2)).train()
    there, here = tmp_path / "base" / "checkpoint-000002", tmp_path / "moved"
    build_run(tmp_path, adapters(tmp_path / "run", str(there), 1)).train()
    shutil.copytree(there, here)
    with pytest.raises(UserError, match=r"were trained on .*base/checkpoint-000002; this run puts them on .*moved"):
        build_run(tmp_path, adapters(tmp_path / "run", str(here), 2))
    shutil.rmtree(tmp_path / "base")
    build_run(tmp_path, adapters(tmp_path / "run", str(here), 2)).train()
    text = f"the checkpoint's adapters were trained on {there}; this run puts them on {here}, which must hold the same"
    assert text in caplog.text


def test_frozen_weights_in_another_precision_are_told_as_a_warning(tmp_path, caplog, monkeypatch):
    """Also a frozen role's; what stands for the same precision is no other one."""
    monkeypatch.setattr("fastvideo_testing.toy.ToyFamily.base_precisions", ("bf16", "fp8"))
    build_run(tmp_path, adapters(tmp_path / "run", "toy/base", 1, base_precision="fp8")).train()
    text = "roles.student.base_precision: frozen weights were fp8 up to the checkpoint, and are float32 from here on"
    assert text not in caplog.text
    build_run(tmp_path, adapters(tmp_path / "run", "toy/base", 2)).train()
    assert text in caplog.text
    caplog.clear()
    same = adapters(tmp_path / "run", "toy/base", 3, base_precision="bf16")
    same["training"]["mixed_precision"] = "bf16"
    build_run(tmp_path, same).train()
    assert "base_precision" not in caplog.text
