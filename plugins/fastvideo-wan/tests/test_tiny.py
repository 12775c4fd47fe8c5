"""The tiny factory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanPipeline

from fastvideo_core.errors import ConfigError
from fastvideo_wan.tiny import write_tiny_pipeline


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_equal_seeds_give_equal_bytes_and_others_do_not(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_tiny_pipeline(tmp_path / name, seed=seed)
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")
    differing = {name for name, data in _bytes(tmp_path / "c").items() if data != _bytes(tmp_path / "a")[name]}
    assert differing == {
        "transformer/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
    }


def test_it_is_small_and_leaves_the_global_random_state_alone(tmp_path):
    before = torch.get_rng_state()
    write_tiny_pipeline(tmp_path / "w", seed=1)
    assert sum(map(len, _bytes(tmp_path / "w").values())) < 2**21
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("scheduler", ["euler", "unipc"])
def test_plain_diffusers_loads_it_and_makes_a_video(tmp_path, scheduler):
    write_tiny_pipeline(tmp_path / "w", num_layers=1, num_heads=4, head_dim=8, text_dim=64, scheduler=scheduler)
    pipeline = WanPipeline.from_pretrained(tmp_path / "w")
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    video = pipeline("a cat ☃", height=32, width=48, num_frames=5, num_inference_steps=2, generator=generator).frames
    assert video.shape == (1, 5, 32, 48, 3)
    assert np.isfinite(video).all()
    assert video.std() > 0.01
    assert pipeline.transformer.config.num_attention_heads == 4
    assert pipeline.text_encoder.config.d_model == 64


def test_the_tokenizer_keeps_every_character_apart(tiny):
    tokenizer = WanPipeline.from_pretrained(tiny).tokenizer
    assert tokenizer.decode(tokenizer("Ünï ☃ code").input_ids, skip_special_tokens=True) == "Ünï ☃ code"


def test_impossible_options_are_all_reported(tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "file").touch()
    with pytest.raises(ConfigError) as error:
        write_tiny_pipeline(tmp_path / "w", head_dim=5, text_dim=20, num_layers=0, vae_dim=-1)
    text = str(error.value)
    assert "is not an empty folder" in text
    assert "num_layers: is 0\n      allowed: 1 or more" in text
    assert "vae_dim: is -1" in text
    assert "head_dim: is 5" in text
    assert "text_dim: is 20" in text
