"""What preprocess stores."""

from __future__ import annotations

import shutil

import pytest
import torch
from diffusers import AutoencoderKLWan, WanPipeline

from fastvideo_core.errors import ConfigError, DataError
from fastvideo_data.captions import CaptionCut
from fastvideo_data.encoder import LatentEncoder
from fastvideo_wan.encoder import WanEncoder
from fastvideo_wan.tiny import write_tiny_pipeline


@pytest.fixture
def encoder(tiny):
    return WanEncoder(tiny, device=torch.device("cpu"))


def _frames(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_it_is_what_core_asks_for(encoder):
    assert isinstance(encoder, LatentEncoder)
    geometry = encoder.geometry
    assert (geometry.frames_divisor, geometry.frames_remainder, geometry.size_multiple) == (4, 1, 16)
    assert geometry.fps == 16


def test_videos_become_the_posteriors_mode_unnormalised(encoder, tiny):
    frames = _frames(2, 9, 32, 48)
    encoded = encoder.encode_videos(frames)
    vae = AutoencoderKLWan.from_pretrained(tiny, subfolder="vae")
    video = frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    with torch.no_grad():
        expected = vae.encode(video).latent_dist.mean
    assert [set(sample) for sample in encoded] == [{"vae_latent"}] * 2
    assert encoded[0]["vae_latent"].shape == (16, 3, 4, 6)
    for sample, latent in zip(encoded, expected, strict=True):
        assert torch.equal(sample["vae_latent"], latent)


def test_frames_that_the_vae_would_drop_are_refused(encoder):
    with pytest.raises(DataError, match="num_frames is 8"):
        encoder.encode_videos(_frames(1, 8, 32, 48))


def test_captions_become_what_the_pipeline_encodes_without_padding(encoder, tiny):
    captions = ["  A  cat &amp; a dog ", "", "x" * 700]
    encoded = encoder.encode_texts(captions)
    assert [len(e) for e in encoded] == [len("A cat & a dog") + 1, 1, 512]
    pipeline = WanPipeline.from_pretrained(tiny)
    with torch.no_grad():
        for caption, embedding in zip(captions, encoded, strict=True):
            expected, _ = pipeline.encode_prompt(caption, None, False, max_sequence_length=512)
            assert torch.equal(embedding, expected[0, : len(embedding)])
            assert expected[0, len(embedding) :].abs().sum() == 0


def test_a_caption_that_is_cut_is_told(encoder):
    assert encoder.caption_cut("x" * 511) is None
    assert encoder.caption_cut("x" * 512) == CaptionCut(513, 512)
    assert encoder.caption_cut("&amp;" * 500) is None  # as the pipeline cleans it


def test_the_description_follows_the_weights_and_not_the_folder(encoder, tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "moved")
    write_tiny_pipeline(tmp_path / "other", seed=1)
    description = encoder.describe()
    assert description["latents_normalised"] == "false"
    assert WanEncoder(str(tmp_path / "moved"), torch.device("cpu")).describe() == description
    other = WanEncoder(str(tmp_path / "other"), torch.device("cpu")).describe()
    assert {key for key in other if other[key] != description[key]} == {"vae", "text_encoder"}


def test_a_wrong_path_is_reported(tmp_path):
    with pytest.raises(ConfigError, match=r"without model_index\.json"):
        WanEncoder(str(tmp_path), torch.device("cpu"))
