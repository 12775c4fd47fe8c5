"""A student of consistency is where DMD2's begins: `roles.student.path` is the first run's folder (docs/recipes)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from fastvideo_core.checkpoint.weights import read_role_weights
from fastvideo_core.cli.main import main
from tests.conftest import write_run
from tests.test_docs import ROOT, example

PAGE = "docs/recipes/consistency-then-dmd2.md"
SHORT: dict[str, Any] = {"max_train_steps": 2, "num_gpus": 1, "enable_gradient_checkpointing_type": None}
SHORT |= {"training_state_checkpointing_steps": 0}


def stage(name: str, base: Path, data: Path, **training: Any) -> dict[str, Any]:
    """A run of the recipe on a tiny pipeline, of two steps."""
    run: dict[str, Any] = yaml.safe_load(example(PAGE, name))
    for role in run["roles"].values():
        role["path"] = str(base) if role["path"].startswith("Wan-AI") else role["path"]
    run["training"] |= {**SHORT, "data_path": str(data), **training}
    return run


def train(run: dict[str, Any]) -> None:
    assert main([str(write_run(Path("run.yaml"), run))]) == 0


@pytest.mark.parametrize("target", ["student", "average"])
def test_the_recipe_s_second_run_begins_with_the_first_one_s_student(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_wan: Path, latent_data: Path, target: str
) -> None:
    monkeypatch.chdir(tmp_path)
    first = stage("consistency.yaml", tiny_wan, latent_data, learning_rate=1e-2)
    first["method_config"]["target"] = target
    train(first)
    second = stage("dmd2.yaml", tiny_wan, latent_data, learning_rate=0.0)
    second["method_config"]["generator_update_interval"] = 1
    assert second["roles"]["student"]["path"] == first["training"]["output_dir"]
    role = "target" if target == "average" else "student"
    second["roles"]["student"]["checkpoint_role"] = role
    train(second)

    made = read_role_weights(first["training"]["output_dir"], role, ema=target == "student")["transformer"]
    begun = read_role_weights(second["training"]["output_dir"], "student", ema=False)["transformer"]
    assert made.keys() == begun.keys()
    assert [name for name in made if not torch.equal(made[name], begun[name])] == []
    untrained = read_role_weights(second["training"]["output_dir"], "critic", ema=False)["transformer"]
    assert any(not torch.equal(made[name], untrained[name]) for name in made)
    assert main(["sample", second["training"]["output_dir"], "--prompt", "a cat", *SIZE, "--out", "videos"]) == 0
    assert list(Path("videos").glob("*.mp4"))


SIZE = ("--height", "32", "--width", "32", "--num-frames", "5")


def test_the_page_of_the_method_leads_to_the_recipe() -> None:
    assert "recipes/consistency-then-dmd2.md" in (ROOT / "docs/consistency.md").read_text(encoding="utf-8")
