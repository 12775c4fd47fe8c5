"""Adapters from training to the files that plain diffusers loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanPipeline

from fastvideo_core.checkpoint.weights import describe, read_role_weights
from fastvideo_core.cli.main import main
from fastvideo_core.config.run import RoleConfig
from fastvideo_core.dispatch.sources import load_role, role_source
from fastvideo_core.fqn import is_adapter
from fastvideo_core.roles import RoleHandle
from fastvideo_wan.loading import load_transformer
from tests.conftest import write_run

LORA = {"rank": 2, "alpha": 6, "targets": ["to_q", "ffn.net.2"]}
CPU = torch.device("cpu")


def run_of(wan: Path, data: Path, out: Path, steps: int, **role: Any) -> dict[str, Any]:
    student = {"path": str(wan), "trainable": True, "lora": LORA, **role}
    training = {
        "seed": 1,
        "data_path": str(data),
        "output_dir": str(out),
        "max_train_steps": steps,
        "learning_rate": 0.03,
    }
    training |= {"training_state_checkpointing_steps": 2, "num_height": 32, "num_width": 32, "num_frames": 9}
    return {
        "recipe": {"family": "wan", "method": "finetune"},
        "roles": {"student": student},
        "training": training,
        "callbacks": {"ema": {"decay": 0.5}},
    }


def train(folder: Path, run: dict[str, Any], *arguments: str) -> Path:
    assert main([str(write_run(folder / "run.yaml", run)), *arguments]) == 0
    out = Path(run["training"]["output_dir"])
    return out / f"checkpoint-{run['training']['max_train_steps']:06d}"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_wan, latent_data) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    return train(folder, run_of(tiny_wan, latent_data, folder / "run", 4))


def merged_by_hand(wan: Path, checkpoint: Path, *, ema: bool) -> dict[str, torch.Tensor]:
    state = load_transformer(str(wan), dtype=torch.float32, device=CPU).state_dict()
    adapters = read_role_weights(checkpoint, "student", ema=ema)["transformer"]
    for name, down in adapters.items():
        if ".lora_A." in name:
            layer = name.partition(".lora_A.")[0]
            state[f"{layer}.weight"] = (
                state[f"{layer}.weight"] + 3.0 * adapters[f"{layer}.lora_B.default.weight"] @ down
            )
    return state


def video(folder: Path, adapters: Path | None = None) -> np.ndarray:
    pipeline = WanPipeline.from_pretrained(folder)
    if adapters is not None:
        pipeline.load_lora_weights(adapters)
    pipeline.set_progress_bar_config(disable=True)
    options = {"height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 2, "guidance_scale": 1.0}
    return pipeline("a cat", generator=torch.Generator().manual_seed(0), **options).frames[0]


def test_a_checkpoint_holds_adapters_and_their_averages_alone(checkpoint):
    assert describe(checkpoint).ema_roles == ("student",)
    raw, ema = (read_role_weights(checkpoint, "student", ema=ema)["transformer"] for ema in (False, True))
    assert raw.keys() == ema.keys()
    assert all(is_adapter(name) for name in raw)
    assert any(not torch.equal(raw[name], ema[name]) for name in raw)
    assert all(raw[name].abs().sum() > 0 for name in raw)


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_sampling_and_roles_use_the_adapters(checkpoint, tiny_wan, weights):
    source = role_source("student", RoleConfig(path=str(checkpoint), trainable=False, weights=weights))
    assert f"{'EMA' if weights == 'ema' else 'raw'} adapters) on {tiny_wan}" in str(source)
    transformer = load_transformer(str(tiny_wan), dtype=torch.float32, device=CPU)
    load_role(RoleHandle("student", {"transformer": transformer}), source)
    expected = merged_by_hand(tiny_wan, checkpoint, ema=weights == "ema")
    for name, value in transformer.state_dict().items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-6)


def test_merged_and_separate_exports_make_the_same_video_in_plain_diffusers(checkpoint, tiny_wan, tmp_path, capsys):
    assert main(["export", str(checkpoint), str(tmp_path / "merged")]) == 0
    assert main(["export", str(checkpoint), str(tmp_path / "adapters"), "--lora", "separate"]) == 0
    assert "WanPipeline.load_lora_weights" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "adapters").iterdir()] == ["pytorch_lora_weights.safetensors"]
    merged, separate = video(tmp_path / "merged"), video(tiny_wan, tmp_path / "adapters")
    assert np.abs(merged - separate).max() < 1e-4
    assert np.abs(merged - video(tiny_wan)).max() > 1e-3


def test_a_resumed_run_is_the_run_that_was_not_interrupted(checkpoint, tiny_wan, latent_data, tmp_path):
    half = run_of(tiny_wan, latent_data, tmp_path / "run", 2)
    train(tmp_path, half)
    half["training"]["max_train_steps"] = 4
    again = train(tmp_path, half, "--resume", "latest")
    for ema in (False, True):
        one, other = (read_role_weights(path, "student", ema=ema)["transformer"] for path in (checkpoint, again))
        assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_training_goes_on_from_merged_adapters_with_new_ones_or_with_all_weights(
    checkpoint, tiny_wan, latent_data, tmp_path
):
    second = train(tmp_path, run_of(checkpoint, latent_data, tmp_path / "second", 1, weights="raw"))
    source = role_source("student", RoleConfig(path=str(second), trainable=False, weights="raw"))
    assert str(source).count("raw adapters") == 2
    whole = run_of(checkpoint, latent_data, tmp_path / "whole", 1, weights="raw", learning_rate=0.0, lora=None)
    start = read_role_weights(train(tmp_path, whole), "student", ema=False)["transformer"]
    expected = merged_by_hand(tiny_wan, checkpoint, ema=False)
    assert start.keys() == expected.keys()
    for name, value in start.items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lora": {"rank": 2, "targets": ["to_x"]}}, r"(?s)'to_x' is the end of no linear layer.*to_k"),
        ({"trainable": False}, r"(?s)found adapters to train for a role that is not trained"),
        ({"lora": {"rank": 0}}, r"(?s)rank"),
    ],
)
def test_what_cannot_be_meant_is_a_clear_error(tiny_wan, latent_data, tmp_path, capsys, change, message):
    import re

    run = run_of(tiny_wan, latent_data, tmp_path / "run", 1, **change)
    assert main([str(write_run(tmp_path / "run.yaml", run))]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_without_peft_the_error_names_the_command(tiny_wan, latent_data, tmp_path, capsys, monkeypatch):
    from fastvideo_core.config import check

    installed = check._is_installed
    monkeypatch.setattr(check, "_is_installed", lambda module: module != "peft" and installed(module))
    assert main([str(write_run(tmp_path / "run.yaml", run_of(tiny_wan, latent_data, tmp_path / "run", 1)))]) == 2
    assert "pip install 'fastvideo-core[lora]'" in capsys.readouterr().err
