"""Roles that a method makes itself, as commands see them: a copy is a pipeline like its original, other networks are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from fastvideo_core.checkpoint.weights import read_role_weights
from tests.commands import Commands, commands, run  # noqa: F401

AVERAGED = """
from fastvideo_core import MethodConfig, register_method
from tests.distributed.averaged_target import AveragedTarget

register_method("averaged", config=MethodConfig, roles=("student",))(AveragedTarget)
"""
PLUGIN = ("--plugin", "averaged.py")


@pytest.fixture
def trained(commands: Commands, run: dict[str, Any]) -> Path:  # noqa: F811
    Path("averaged.py").write_text(AVERAGED)
    run["recipe"]["method"] = "averaged"
    run.pop("method_config", None)
    run["training"] |= {"output_dir": "averaged", "max_train_steps": 2, "learning_rate": 1e-2}
    Path("averaged.yaml").write_text(json.dumps(run))
    commands.works("averaged.yaml", *PLUGIN)
    return Path("averaged")


@pytest.mark.slow
def test_a_copy_is_sampled_exported_and_trained_on(
    commands: Commands,  # noqa: F811
    run: dict[str, Any],  # noqa: F811
    trained: Path,
) -> None:
    stored = read_role_weights(trained, "target", ema=False)["transformer"]
    student = read_role_weights(trained, "student", ema=False)["transformer"]
    assert any(not torch.equal(stored[name], student[name]) for name in stored)

    commands.works("export", trained, "exported", "--role", "target", *PLUGIN)
    files = Path("exported/transformer").glob("*.safetensors")
    exported = {name: tensor for file in files for name, tensor in safetensors.torch.load_file(file).items()}
    assert exported.keys() == stored.keys()
    for name, tensor in exported.items():
        torch.testing.assert_close(tensor.float(), stored[name].float(), atol=1e-2, rtol=1e-2)

    size = ("--height", "32", "--width", "32", "--num-frames", "5")
    commands.works(
        "sample", trained, "--role", "target", "--prompt", "a", "--steps", "1", "--out", "videos", *size, *PLUGIN
    )
    assert list(Path("videos").glob("*.mp4"))

    run["roles"]["student"] |= {"path": str(trained), "checkpoint_role": "target"}
    run["training"] |= {"output_dir": "again", "learning_rate": 0.0}
    Path("again.yaml").write_text(json.dumps(run))
    commands.works("again.yaml", *PLUGIN)
    again = read_role_weights("again", "student", ema=False)["transformer"]
    assert all(torch.equal(again[name], stored[name]) for name in stored)


def test_a_discriminator_is_no_pipeline(commands: Commands, run: dict[str, Any]) -> None:  # noqa: F811
    path = run["roles"]["student"]["path"]
    run["recipe"]["method"] = "dmd2"
    run["roles"] = {name: {"path": path, "trainable": name != "teacher"} for name in ("student", "teacher", "critic")}
    run["method_config"] = {"adversarial_weight": 0.1, "generator_update_interval": 1}
    run["training"] |= {"output_dir": "dmd2", "max_train_steps": 1}
    Path("dmd2.yaml").write_text(json.dumps(run))
    commands.works("dmd2.yaml")
    for command in (("export", "dmd2", "out"), ("sample", "dmd2", "--prompt", "a")):
        error = commands.refuses(*command, "--role", "discriminator")
        assert "the role 'discriminator' of dmd2/checkpoint-000001 has networks of the method" in error
        assert "allowed: student, critic" in error
