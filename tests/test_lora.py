"""Adapters from training to the files that plain diffusers loads, on every installed family."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from fastvideo_core.checkpoint.weights import describe, read_role_weights
from fastvideo_core.cli.main import main
from fastvideo_core.config.run import RoleConfig
from fastvideo_core.contracts.family import open_family
from fastvideo_core.contracts.roles import RoleHandle, is_lora_parameter
from fastvideo_core.dispatch.role_weights import load_role, role_source
from fastvideo_core.registry import PluginRegistry
from tests.conftest import write_run
from tests.families import ALL_KINDS, TinyFamily, tiny_family

__all__ = ["tiny_family"]

LORA = {"rank": 2, "alpha": 6, "targets": ["to_q", "net.2"]}
UNGUIDED = dict.fromkeys(("stg_scale", "audio_stg_scale", "guidance_rescale", "audio_guidance_rescale"), 0.0)
UNGUIDED |= dict.fromkeys(("guidance_scale", "audio_guidance_scale", "modality_scale", "audio_modality_scale"), 1.0)
"""What turns guidance off, in the pipelines that know these arguments."""


def run_of(family: str, base: Path, data: Path, out: Path, steps: int, **role: Any) -> dict[str, Any]:
    student = {"path": str(base), "trainable": True, "lora": LORA, **role}
    training = {
        "seed": 1,
        "data_path": str(data),
        "output_dir": str(out),
        "max_train_steps": steps,
        "learning_rate": 0.03,
        "training_state_checkpointing_steps": 2,
    }
    return {
        "recipe": {"family": family, "method": "finetune"},
        "roles": {"student": student},
        "training": training,
        "callbacks": {"ema": {"decay": 0.5}},
    }


def train(folder: Path, run: dict[str, Any], *arguments: str) -> Path:
    assert main([str(write_run(folder / "run.yaml", run)), *arguments]) == 0
    out = Path(run["training"]["output_dir"])
    return out / f"checkpoint-{run['training']['max_train_steps']:06d}"


@dataclass(frozen=True)
class Trained:
    """A family, and the checkpoint of four steps with adapters."""

    tiny: TinyFamily
    checkpoint: Path

    def run(self, out: Path, steps: int, *, base: Path | None = None, **role: Any) -> dict[str, Any]:
        """A run on the family's pipeline, or on another base."""
        return run_of(self.tiny.family, base or self.tiny.base, self.tiny.data, out, steps, **role)

    def merged_by_hand(self, *, ema: bool) -> dict[str, torch.Tensor]:
        """The network's weights with its adapters, W + 3 B A."""
        state = self.tiny.network().state_dict()
        adapters = read_role_weights(self.checkpoint, "student", ema=ema)["transformer"]
        for name, down in adapters.items():
            if ".lora_A." in name:
                layer = name.partition(".lora_A.")[0]
                up = adapters[f"{layer}.lora_B.default.weight"]
                state[f"{layer}.weight"] = state[f"{layer}.weight"] + 3.0 * up @ down
        return state

    def video(self, folder: Path, adapters: Path | None = None) -> np.ndarray:
        """Float frames of plain diffusers."""
        pipeline = DiffusionPipeline.from_pretrained(folder)
        if adapters is not None:
            pipeline.load_lora_weights(adapters)
        pipeline.set_progress_bar_config(disable=True)
        known = inspect.signature(type(pipeline).__call__).parameters
        options = {name: value for name, value in UNGUIDED.items() if name in known}
        clip = self.tiny.clip
        options |= {"height": clip.height, "width": clip.width, "num_frames": clip.num_frames, "output_type": "np"}
        generator = torch.Generator().manual_seed(0)
        frames: np.ndarray = pipeline("a cat", generator=generator, num_inference_steps=2, **options).frames[0]
        return frames


@pytest.fixture(scope="module", params=ALL_KINDS, ids=str)
def trained(request, tmp_path_factory, tiny_family) -> Trained:
    folder = tmp_path_factory.mktemp("lora")
    tiny = tiny_family(request.param)
    return Trained(tiny, train(folder, run_of(tiny.family, tiny.base, tiny.data, folder / "run", 4)))


def test_a_checkpoint_holds_adapters_and_their_averages_alone(trained):
    assert describe(trained.checkpoint).ema_roles == ("student",)
    raw, ema = (read_role_weights(trained.checkpoint, "student", ema=ema)["transformer"] for ema in (False, True))
    assert raw.keys() == ema.keys()
    assert all(is_lora_parameter(name) for name in raw)
    assert any(not torch.equal(raw[name], ema[name]) for name in raw)
    assert {name.partition(".lora_")[0].rpartition(".")[2] for name in raw} == {"to_q", "2"}


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_sampling_and_roles_use_the_adapters(trained, weights):
    source = role_source("student", RoleConfig(path=str(trained.checkpoint), trainable=False, weights=weights))
    assert f"{'EMA' if weights == 'ema' else 'raw'} adapters) on {trained.tiny.base}" in str(source)
    transformer = trained.tiny.network()
    family = open_family(trained.tiny.family, PluginRegistry())
    load_role(RoleHandle("student", {"transformer": transformer}), source, family)
    expected = trained.merged_by_hand(ema=weights == "ema")
    for name, value in transformer.state_dict().items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-6)


def test_merged_and_separate_exports_make_the_same_video_in_plain_diffusers(trained, tmp_path, capsys):
    checkpoint = str(trained.checkpoint)
    assert main(["export", checkpoint, str(tmp_path / "merged")]) == 0
    assert main(["export", checkpoint, str(tmp_path / "adapters"), "--lora", "separate"]) == 0
    assert "Pipeline.load_lora_weights" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "adapters").iterdir()] == ["pytorch_lora_weights.safetensors"]
    base = trained.tiny.base
    merged, separate = trained.video(tmp_path / "merged"), trained.video(base, tmp_path / "adapters")
    assert np.abs(merged - separate).max() < 1e-4
    assert np.abs(merged - trained.video(base)).max() > 1e-3


def test_a_resumed_run_is_the_run_that_was_not_interrupted(trained, tmp_path):
    half = trained.run(tmp_path / "run", 2)
    train(tmp_path, half)
    half["training"]["max_train_steps"] = 4
    again = train(tmp_path, half, "--resume", "latest")
    for ema in (False, True):
        both = (trained.checkpoint, again)
        one, other = (read_role_weights(path, "student", ema=ema)["transformer"] for path in both)
        assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_training_goes_on_from_merged_adapters_with_new_ones_or_with_all_weights(trained, tmp_path):
    base = trained.checkpoint
    second = train(tmp_path, trained.run(tmp_path / "second", 1, base=base, weights="raw"))
    source = role_source("student", RoleConfig(path=str(second), trainable=False, weights="raw"))
    assert str(source).count("raw adapters") == 2
    whole = trained.run(tmp_path / "whole", 1, base=base, weights="raw", learning_rate=0.0, lora=None)
    start = read_role_weights(train(tmp_path, whole), "student", ema=False)["transformer"]
    expected = trained.merged_by_hand(ema=False)
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
    run = run_of("wan", tiny_wan, latent_data, tmp_path / "run", 1, **change)
    assert main([str(write_run(tmp_path / "run.yaml", run))]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_without_peft_the_error_names_the_command(tiny_wan, latent_data, tmp_path, capsys, monkeypatch):
    from fastvideo_core.config import check

    installed = check.is_installed
    monkeypatch.setattr(check, "is_installed", lambda module: module != "peft" and installed(module))
    assert main([str(write_run(tmp_path / "run.yaml", run_of("wan", tiny_wan, latent_data, tmp_path / "run", 1)))]) == 2
    assert "pip install 'fastvideo-core[lora]'" in capsys.readouterr().err
