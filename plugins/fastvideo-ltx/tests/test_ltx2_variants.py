"""LTX-2.3, LTX-2.5 and other folders of the generation: what is read, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from ltx2_pipeline import FPS, FRAMES, HEIGHT, WIDTH, generate, open_pipeline

from fastvideo_core.contracts.validator import ValidationPrompt, ValidationRequest
from fastvideo_core.errors import ConfigError
from fastvideo_ltx.config import LtxConfig
from fastvideo_ltx.family import build_sampler
from fastvideo_ltx.generations import open_folder
from fastvideo_ltx.tiny import write_tiny_pipeline


@pytest.fixture(scope="module")
def ltx23(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("ltx23") / "tiny"
    write_tiny_pipeline(path, generation=2, variant="ltx23")
    return str(path)


@pytest.mark.parametrize(("variant", "guidance"), [("ltx23", 1.0), ("ltx23", 3.0), ("tiny_ltx25", 3.0)])
def test_later_variants_are_sampled_as_by_their_own_pipeline(request, variant, guidance):
    path = request.getfixturevalue(variant)
    frames, sound = generate(open_pipeline(path), steps=2, guidance=guidance, output_type="np")
    sampler = build_sampler(path, LtxConfig(negative_prompt=""), device=torch.device("cpu"))
    asked = ValidationRequest(sampler.handle, Path("unused"), sampling_steps=2, guidance_scale=guidance)
    prompt = ValidationPrompt("a cat", height=HEIGHT, width=WIDTH, num_frames=FRAMES)
    ours = sampler.sample(asked, prompt, torch.Generator().manual_seed(3))
    assert np.abs(ours.frames.numpy().astype(int) - (frames[0] * 255).round()).max() <= 1
    length = min(sound.shape[-1], ours.audio.shape[-1])
    torch.testing.assert_close(ours.audio[:, :length], sound[0, :, :length], rtol=0, atol=1e-4)
    assert ours.sample_rate == 48000
    assert ours.audio.shape == (2, round(FRAMES / FPS * 48000))
    assert length > 0.85 * ours.audio.shape[-1]
    assert sound.std() > 1e-3


def test_ltx23_trains_on_video_alone_too(ltx23, run_config):
    from fastvideo_ltx.family import LtxFamily

    built = LtxFamily().build(run_config(paths={"student": ltx23}, pipeline={"streams": ("video",)}))
    built.adapter.on_train_start()
    batch = built.adapter.prepare_batch(
        {"vae_latent": torch.randn(1, 128, 2, 2, 3), "text_embedding": torch.randn(1, 5, 32 + 16)}
    )
    t = torch.full((1, 1, 1), 500.0)
    student = built.bundle["student"]
    built.adapter.predict_noise(student, batch.latents, t, batch, conditional=True).sum().backward()
    with_gradient = {name for name, p in student.modules["transformer"].named_parameters() if p.grad is not None}
    assert with_gradient
    assert not any("audio" in name for name in with_gradient)


def test_a_folder_says_what_it_holds(tiny_ltx2, ltx23, tiny_ltx25):
    folder = open_folder(tiny_ltx2, where="path")
    assert (folder.traits.name, folder.channels, folder.temporal_factor, folder.spatial_factor) == (
        "LTX-2",
        128,
        8,
        32,
    )
    assert (folder.facts["audio_sample_rate"], folder.facts["sound_sample_rate"]) == (16000, 24000)
    later = open_folder(ltx23, where="path")
    assert (folder.text_dim, later.text_dim) == (32, 32 + 16)
    assert "Gemma4" not in later.facts["text_encoder"]
    assert open_folder(tiny_ltx25, where="path").facts["text_encoder"] == "Gemma4UnifiedForConditionalGeneration"
    assert (later.facts["vocoder"], later.facts["sound_sample_rate"]) == ("LTX2VocoderWithBWE", 48000)


def edited(tiny: str, out: Path, file: str, **changes: object) -> str:
    shutil.copytree(tiny, out)
    path = out / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return str(out)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (
            "model_index.json",
            {"text_encoder": ["transformers", "T5EncoderModel"]},
            "its text encoder is T5EncoderModel\n    allowed: Gemma3ForConditionalGeneration or Gemma4Unified",
        ),
        (
            "model_index.json",
            {"vocoder": ["ltx2", "Other"]},
            r"its vocoder is Other\n    allowed: LTX2Vocoder or ",
        ),
        (
            "model_index.json",
            {"vocoder": ["ltx2", "LTX2VocoderWithBWE"]},
            "vocoder/ is an LTX2Vocoder, but its index says LTX2VocoderWithBWE",
        ),
        ("vae/config.json", {"timestep_conditioning": True}, "its VAE decodes with timesteps"),
        ("transformer/config.json", {"patch_size": 2}, "its transformer has patch_size 2"),
        ("audio_vae/config.json", {"mel_bins": "many"}, "mel_bins in audio_vae/ is 'many'"),
        ("audio_vae/config.json", {"latent_channels": 4}, "its autoencoders make 128 and 64"),
    ],
)
def test_other_variants_are_refused(tiny_ltx2, tmp_path, file, changes, message):
    path = edited(tiny_ltx2, tmp_path / "other", file, **changes)
    with pytest.raises(ConfigError, match=message):
        open_folder(path, where="roles.student.path")


@pytest.mark.parametrize("component", ["audio_vae", "connectors", "vocoder"])
def test_a_missing_component_is_named(tiny_ltx2, tmp_path, component):
    shutil.copytree(tiny_ltx2, tmp_path / "other")
    shutil.rmtree(tmp_path / "other" / component)
    with pytest.raises(ConfigError, match=f"has no subfolder {component}/"):
        open_folder(str(tmp_path / "other"), where="path")


def test_a_scheduler_of_the_sound_s_own_is_taken_where_it_is_as_the_video_s(tiny_ltx2, tmp_path):
    path = tmp_path / "other"
    named = {"audio_scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}
    edited(tiny_ltx2, path, "model_index.json", **named)
    shutil.copytree(path / "scheduler", path / "audio_scheduler")
    assert open_folder(str(path), where="path").scheduler == open_folder(tiny_ltx2, where="path").scheduler
    config = path / "audio_scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "shift": 7.5}))
    with pytest.raises(ConfigError, match=r"its audio_scheduler/ has shift 7.5\n    allowed: what scheduler/ has"):
        open_folder(str(path), where="path")
    edited(str(path), tmp_path / "unnamed", "model_index.json", audio_scheduler=[None, None])
    assert open_folder(str(tmp_path / "unnamed"), where="path")
