"""The ground that the tests of this folder damage copies of."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fastvideo_core.cli.main import main
from tests.families import Kind as Family
from tests.families import write_tiny_family
from tests.fuzz.kinds import Ground


@pytest.fixture(scope="package")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """A tiny pipeline, data, and a run of one step with a validation."""
    folder = tmp_path_factory.mktemp("ground")
    made = write_tiny_family(Family("wan"), folder)
    (data,) = made.data.rglob("*.parquet")
    prompts = folder / "prompts.json"
    height, width, frames = made.clip.height, made.clip.width, made.clip.num_frames
    prompts.write_text(
        f'{{"data": [{{"caption": "a", "height": {height}, "width": {width}, "num_frames": {frames}}}]}}'
    )
    training = {"output_dir": str(folder / "run"), "data_path": str(data), "max_train_steps": 1, "seed": 7}
    training |= {"log_validation": True, "validation_steps": 1, "validation_dataset_file": str(prompts)}
    run = {
        "recipe": {"family": "wan", "method": "finetune"},
        "roles": {"student": {"path": str(made.base), "trainable": True, "betas": [0.9, 0.99]}},
        "training": training | {"validation_sampling_steps": [1], "validation_guidance_scale": 1.0},
        "callbacks": {"ema": {"decay": 0.9}},
    }
    config = folder / "run.yaml"
    config.write_text(yaml.safe_dump(run, sort_keys=False))
    assert main([str(config), "--quiet"]) == 0
    run["training"]["output_dir"] = str(folder / "next")
    config.write_text(yaml.safe_dump(run, sort_keys=False))
    return Ground("wan", made.base, data, folder / "run", config)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, and a working folder of its own."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
