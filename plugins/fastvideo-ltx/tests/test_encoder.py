"""What preprocess stores."""

from __future__ import annotations

import shutil

import pytest
import torch
from diffusers import AutoencoderKLLTXVideo, LTXConditionPipeline, LTXPipeline

from fastvideo_core.errors import ConfigError, DataError
from fastvideo_data.captions import CaptionCut
from fastvideo_data.encoder import LatentEncoder
from fastvideo_ltx.encoder import build_encoder
from fastvideo_ltx.tiny import write_tiny_pipeline

CPU = torch.device("cpu")


@pytest.fixture
def encoder(tiny):
    return build_encoder(tiny, device=CPU)


def _frames(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_it_is_what_core_asks_for(encoder):
    assert isinstance(encoder, LatentEncoder)
    geometry = encoder.geometry
    assert (geometry.frames_divisor, geometry.frames_remainder, geometry.size_multiple) == (8, 1, 32)
    assert geometry.fps == 25


def test_videos_become_the_posteriors_mode_unnormalised(encoder, tiny):
    frames = _frames(2, 17, 64, 96)
    encoded = encoder.encode_videos(frames)
    vae = AutoencoderKLLTXVideo.from_pretrained(tiny, subfolder="vae")
    video = frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    with torch.no_grad():
        expected = vae.encode(video).latent_dist.mean
    assert [set(sample) for sample in encoded] == [{"vae_latent"}] * 2
    assert encoded[0]["vae_latent"].shape == (128, 3, 2, 3)
    for sample, latent in zip(encoded, expected, strict=True):
        torch.testing.assert_close(sample["vae_latent"], latent, atol=1e-5, rtol=1e-5)


def test_a_frame_count_that_does_not_fit_is_refused(encoder):
    with pytest.raises(DataError, match="num_frames is 16"):
        encoder.encode_videos(_frames(1, 16, 64, 96))


@pytest.mark.parametrize(("kind", "length"), [(LTXPipeline, 128), (LTXConditionPipeline, 256)])
def test_captions_become_what_the_pipeline_encodes_without_padding(tiny, tiny_condition, kind, length):
    path = tiny if kind is LTXPipeline else tiny_condition
    captions = ["  A  cat & a dog ", "", "x" * 700]
    encoded = build_encoder(path, device=CPU).encode_texts(captions)
    assert [len(e) for e in encoded] == [len(captions[0]) + 1, 1, length]
    pipeline = kind.from_pretrained(path)
    with torch.no_grad():
        for caption, embedding in zip(captions, encoded, strict=True):
            expected, mask, _, _ = pipeline.encode_prompt(
                caption, do_classifier_free_guidance=False, max_sequence_length=length
            )
            assert torch.equal(embedding, expected[0, : len(embedding)])
            assert int(mask.sum()) == len(embedding)
    cuts = [build_encoder(path, device=CPU).caption_cut("x" * count) for count in (length - 1, length, 700)]
    assert cuts == [None, CaptionCut(length + 1, length), CaptionCut(701, length)]


def test_the_description_follows_weights_and_conventions_and_not_the_folder(encoder, tiny, tiny_condition, tmp_path):
    shutil.copytree(tiny, tmp_path / "moved")
    write_tiny_pipeline(tmp_path / "other", seed=1)
    description = encoder.describe()
    assert description["latents_normalised"] == "false"
    assert build_encoder(str(tmp_path / "moved"), CPU).describe() == description
    other = build_encoder(str(tmp_path / "other"), CPU).describe()
    assert {key for key in other if other[key] != description[key]} == {"vae", "text_encoder"}
    later = build_encoder(tiny_condition, CPU).describe()
    assert {key for key in later if later[key] != description[key]} == {"text_length", "text_masked"}


def test_a_wrong_path_is_reported(tmp_path):
    with pytest.raises(ConfigError, match=r"without model_index\.json"):
        build_encoder(str(tmp_path), CPU)
