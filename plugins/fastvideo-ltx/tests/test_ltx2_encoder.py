"""What preprocess stores with LTX-2: the sound's spectrogram, latents of both streams, text before the connectors."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from ltx2_pipeline import FPS, FRAMES, open_pipeline
from safetensors.torch import load_file, save_file

from fastvideo_data.captions import CaptionCut
from fastvideo_data.data_set import DataSet
from fastvideo_data.encoder import AudioEncoder, LatentEncoder
from fastvideo_data.preprocessing.clips import PreprocessOptions
from fastvideo_data.preprocessing.run import preprocess
from fastvideo_data.video_files import write_video
from fastvideo_ltx.encoder import build_encoder
from fastvideo_ltx.ltx2.mel import log_mel

CPU = torch.device("cpu")
RATE = 16000


def tone(frequency: float, seconds: float, rate: int = RATE) -> torch.Tensor:
    return 0.5 * torch.sin(2 * math.pi * frequency * torch.arange(round(seconds * rate)) / rate)


def slaney_mel(frequency: float) -> float:
    """Slaney's scale: linear below 1000 Hz, logarithmic above (Auditory Toolbox, 1998)."""
    return frequency * 3 / 200 if frequency < 1000 else 15 + 27 * math.log(frequency / 1000) / math.log(6.4)


@pytest.mark.parametrize("frequency", [300.0, 1000.0, 4000.0])
def test_a_tone_is_in_its_own_mel_band(frequency):
    mel = log_mel(tone(frequency, 0.5).expand(1, 2, -1), sample_rate=RATE, hop_length=160, mel_bins=64)
    assert mel.shape == (1, 2, 51, 64)
    centre = (slaney_mel(frequency) / slaney_mel(RATE / 2)) * 65 - 1
    assert abs(int(mel[0, 0, 25].argmax()) - centre) <= 1


def test_the_bands_are_as_loud_as_slaney_s_area_normalised_triangles():
    """White noise of variance s^2 has the mean magnitude sqrt(pi / 4 * s^2 * sum(window^2)) in every bin, and each band
    weighs its bins with a triangle of area 1 (per Hz)."""
    noise = torch.randn(1, 1, 40 * RATE, generator=torch.Generator().manual_seed(0)) * 0.1
    mel = log_mel(noise, sample_rate=RATE, hop_length=160, mel_bins=64).exp().mean(dim=2)[0, 0]
    magnitude = math.sqrt(math.pi / 4 * 0.1**2 * float(torch.hann_window(1024).square().sum()))
    expected = magnitude / (RATE / 1024)  # the triangle's sum over bins of 15.6 Hz
    torch.testing.assert_close(mel[20:], torch.full((44,), expected), rtol=0.06, atol=0)


def test_silence_is_the_floor():
    mel = log_mel(torch.zeros(1, 2, RATE), sample_rate=RATE, hop_length=160, mel_bins=64)
    torch.testing.assert_close(mel, torch.full_like(mel, math.log(1e-5)))


@pytest.fixture(scope="module")
def encoder(tiny_ltx2):
    return build_encoder(tiny_ltx2, CPU)


def test_it_encodes_video_and_sound(encoder):
    assert isinstance(encoder, LatentEncoder)
    assert isinstance(encoder, AudioEncoder)
    assert (encoder.audio_sample_rate, encoder.geometry.fps) == (RATE, FPS)


@pytest.mark.parametrize(("num_frames", "moments"), [(9, 9), (17, 18), (25, 26)])
def test_a_sound_has_as_many_moments_as_the_pipeline_gives_to_its_video(encoder, num_frames, moments):
    samples = round(num_frames / FPS * RATE)
    latent = encoder.encode_audio([tone(500, 1, samples).expand(2, -1).contiguous()[:, :samples]])[0]
    assert latent.shape == (8, moments, 16)
    assert moments == round(num_frames / FPS * 25)


def test_a_sound_shorter_than_a_window_has_one_moment(encoder):
    (latent,) = encoder.encode_audio([tone(440.0, 1 / 60).expand(2, -1)])
    assert latent.shape == (8, 1, 16)
    assert latent.isfinite().all()


def test_video_latents_are_the_mode_of_the_pipeline_s_vae(encoder, tiny_ltx2):
    frames = torch.randint(0, 256, (1, FRAMES, 64, 96, 3), dtype=torch.uint8)
    latent = encoder.encode_videos(frames)[0]["vae_latent"]
    with torch.no_grad():
        pixels = frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1
        expected = open_pipeline(tiny_ltx2).vae.encode(pixels).latent_dist.mode()[0]
    assert torch.equal(latent, expected)
    assert latent.shape == (128, 2, 2, 3)


@pytest.mark.parametrize(
    ("component", "changed"), [("vae", "vae"), ("audio_vae", "audio_vae"), ("connectors", "text_projection")]
)
def test_other_weights_are_another_encoding(encoder, tiny_ltx2, tmp_path, component, changed):
    shutil.copytree(tiny_ltx2, tmp_path / "other")
    file = next((tmp_path / "other" / component).glob("*.safetensors"))
    weights = load_file(file)
    name = next(name for name in weights if "proj_in" in name or "conv_in" in name)
    save_file({**weights, name: weights[name] + 1}, file, metadata={"format": "pt"})
    before, after = encoder.describe(), build_encoder(str(tmp_path / "other"), CPU).describe()
    assert [key for key in before if before[key] != after[key]] == [changed]


def test_preprocess_stores_sound_beside_the_picture(encoder, tmp_path: Path):
    (tmp_path / "clips").mkdir()
    frames = np.random.default_rng(0).integers(0, 256, (20, 64, 96, 3), np.uint8)
    for name, sound in (("loud", tone(700, 20 / 24)[None].numpy()), ("mute", None)):
        write_video(
            tmp_path / "clips" / f"{name}.mp4", frames, FPS, audio=sound, sample_rate=RATE if name == "loud" else None
        )
        (tmp_path / "clips" / f"{name}.txt").write_text(f"a {name} clip")
    options = PreprocessOptions(height=64, width=96, num_frames=9, clips="all", batch_size=2)
    report = preprocess(encoder, tmp_path / "clips", tmp_path / "data", options)
    assert (report.samples, report.without_sound) == (4, ("mute.mp4",))
    batch = next(DataSet(tmp_path / "data" / "with_sound").loader(batch_size=2, seed=0))
    assert batch["vae_latent"].shape == (2, 128, 2, 2, 3)
    assert batch["audio_latent"].shape == (2, 8, 9, 16)
    assert batch["text_embedding"].shape == (2, 1 + len("a▁loud▁clip".encode()), 32)
    assert not batch["vae_latent_normalised"]


def test_a_caption_that_is_cut_is_told(encoder):
    assert encoder.caption_cut("x" * 1023) is None
    assert encoder.caption_cut("x" * 1024) == CaptionCut(1025, 1024)
