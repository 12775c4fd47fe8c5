"""LTX-2's network and text are called as the real LTX2Pipeline calls them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import LTX2ImageToVideoPipeline, LTX2VideoTransformer3DModel
from ltx2_pipeline import FPS, HEIGHT, WIDTH, generate, open_pipeline, packed, recorded
from PIL import Image

from fastvideo_diffusers.loading import load_model
from fastvideo_ltx.layout import TokenLayout
from fastvideo_ltx.ltx2.latents import pack_audio, unpack_audio
from fastvideo_ltx.ltx2.network import predict_velocity
from fastvideo_ltx.ltx2.text import Connectors, GemmaCaptions, pad_left

CPU = torch.device("cpu")
LAYOUT = TokenLayout(frames=2, height=2, width=3, audio=9)


@pytest.fixture(scope="module")
def pipeline(tiny_ltx2):
    return open_pipeline(tiny_ltx2)


def load(path):
    return load_model(LTX2VideoTransformer3DModel, path, "transformer", dtype=torch.float32, device=CPU, where="path")


@pytest.fixture(scope="module")
def transformer(tiny_ltx2):
    return load(tiny_ltx2)


def is_sound(name):
    """Whether a parameter serves the sound, or what the streams see of each other."""
    return any(word in name for word in ("audio", "av_cross", "a2v_cross"))


def conditioning_of(call, batch=1):
    return {
        "text": call["encoder_hidden_states"],
        "audio_text": call["audio_encoder_hidden_states"],
        "text_mask": call["encoder_attention_mask"],
        "fps": torch.full((batch,), FPS),
    }


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_velocity_is_the_one_that_the_pipeline_gets_from_its_transformer(pipeline, transformer, guidance):
    with recorded(pipeline.transformer) as calls:
        generate(pipeline, guidance=guidance, output_type="latent")
    assert len(calls) == 2
    for call, (video, audio) in calls:
        noisy = packed(call["hidden_states"], call["audio_hidden_states"])
        t = call["timestep"]
        with torch.no_grad():
            velocity = predict_velocity(transformer, noisy, t, conditioning_of(call, len(t)), LAYOUT, autocast=False)
        assert torch.equal(velocity, packed(video, audio))


def test_without_audio_it_is_the_video_of_the_pipeline_s_isolated_call(pipeline, transformer):
    with recorded(pipeline.transformer) as calls:
        generate(pipeline, modality_scale=2.0, output_type="latent")
    call, (video, _) = next(entry for entry in calls if entry[0]["isolate_modalities"])
    layout = TokenLayout(LAYOUT.frames, LAYOUT.height, LAYOUT.width)
    with torch.no_grad():
        velocity = predict_velocity(
            transformer, call["hidden_states"], call["timestep"], conditioning_of(call), layout, autocast=False
        )
    torch.testing.assert_close(velocity, video, rtol=0, atol=1e-6)


def test_tokens_of_one_level_are_the_sample_s_level(pipeline, transformer):
    with recorded(pipeline.transformer) as calls:
        generate(pipeline, output_type="latent")
    call, _ = calls[0]
    noisy, given = packed(call["hidden_states"], call["audio_hidden_states"]), conditioning_of(call)
    t = torch.tensor([370.0])
    with torch.no_grad():
        of_sample = predict_velocity(transformer, noisy, t, given, LAYOUT, autocast=False)
        per_token = t[:, None].expand(1, LAYOUT.total).contiguous()
        of_tokens = predict_velocity(transformer, noisy, per_token, given, LAYOUT, autocast=False)
        per_token[:, :6] = 0
        conditioned = predict_velocity(transformer, noisy, per_token, given, LAYOUT, autocast=False)
    torch.testing.assert_close(of_tokens, of_sample, rtol=0, atol=1e-6)
    assert (conditioned[:, :6] - of_sample[:, :6]).abs().max() > 1e-3


def test_a_given_first_frame_is_as_in_the_image_to_video_pipeline(pipeline, transformer):
    """Its tokens are at 0, while the streams' own levels, which they see each other by, stay."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
    with recorded(pipeline.transformer) as calls:
        generate(LTX2ImageToVideoPipeline(**pipeline.components), image=image, output_type="latent")
    call, (video, audio) = calls[1]
    levels = call["audio_timestep"][:, None].expand(-1, LAYOUT.audio)
    t = torch.cat([call["timestep"], levels], dim=1)
    assert (t[0] == 0).tolist() == [True] * 6 + [False] * 15
    noisy = packed(call["hidden_states"], call["audio_hidden_states"])
    with torch.no_grad():
        velocity = predict_velocity(transformer, noisy, t, conditioning_of(call), LAYOUT, autocast=False)
    torch.testing.assert_close(velocity, packed(video, audio), rtol=0, atol=1e-6)


def test_every_sample_has_its_own_frame_rate(pipeline, transformer):
    with recorded(pipeline.transformer) as calls:
        generate(pipeline, output_type="latent")
    call, _ = calls[0]
    noisy, given = packed(call["hidden_states"], call["audio_hidden_states"]), conditioning_of(call)
    two = {name: value.repeat(2, *[1] * (value.ndim - 1)) for name, value in given.items()}
    two["fps"] = torch.tensor([24.0, 12.0])
    t = torch.tensor([500.0])
    with torch.no_grad():
        both = predict_velocity(transformer, noisy.repeat(2, 1, 1), t.repeat(2), two, LAYOUT, autocast=False)
        slow = predict_velocity(transformer, noisy, t, {**given, "fps": torch.tensor([12.0])}, LAYOUT, autocast=False)
    torch.testing.assert_close(both[1:], slow, rtol=0, atol=1e-6)
    assert (both[0] - both[1]).abs().max() > 1e-4


def test_video_alone_gives_no_gradient_to_the_audio_stream(tiny_ltx2):
    transformer = load(tiny_ltx2).train()
    transformer.enable_gradient_checkpointing()
    layout = TokenLayout(2, 2, 3)
    given = {"text": torch.randn(1, 1024, 32), "text_mask": torch.ones(1, 1024, dtype=torch.int64)}
    given["fps"] = torch.tensor([24.0])
    predict_velocity(
        transformer, torch.randn(1, 12, 128), torch.tensor([500.0]), given, layout, autocast=False
    ).sum().backward()
    without = {name for name, p in transformer.named_parameters() if p.grad is None}
    assert without == {name for name, _ in transformer.named_parameters() if is_sound(name)}


@pytest.mark.parametrize("prompt", ["a cat", "ein größerer Hund läuft durch den Regen"])
def test_the_text_is_what_the_pipeline_s_connectors_give(pipeline, tiny_ltx2, prompt):
    with recorded(pipeline.transformer) as calls:
        generate(pipeline, prompt, output_type="latent")
    call, _ = calls[0]
    captions = GemmaCaptions(tiny_ltx2, "Gemma3ForConditionalGeneration", device=CPU, dtype=torch.float32, where="path")
    features = captions.encode([prompt])[0]
    assert features.shape == (1 + len(prompt.replace(" ", "▁").encode()), 32)
    given = Connectors(tiny_ltx2, device=CPU, dtype=torch.float32).connect(*pad_left(features[None]))
    assert torch.equal(given["text"], call["encoder_hidden_states"])
    assert torch.equal(given["audio_text"], call["audio_encoder_hidden_states"])
    assert torch.equal(given["text_mask"], call["encoder_attention_mask"])


def test_padding_behind_a_caption_does_not_count(tiny_ltx2):
    connectors = Connectors(tiny_ltx2, device=CPU, dtype=torch.float32)
    short, long = torch.randn(1, 4, 32), torch.randn(1, 9, 32)
    both = torch.cat([torch.nn.functional.pad(short, (0, 0, 0, 5), value=7.0), long])
    given = connectors.connect(*pad_left(both, torch.tensor([4, 9])))
    alone = connectors.connect(*pad_left(short)), connectors.connect(*pad_left(long))
    torch.testing.assert_close(given["text"][:1], alone[0]["text"], rtol=0, atol=1e-6)
    torch.testing.assert_close(given["audio_text"][1:], alone[1]["audio_text"], rtol=0, atol=1e-6)


def test_audio_is_packed_as_the_pipeline_packs_it(pipeline):
    latents = torch.randn(2, 8, 9, 16)
    assert torch.equal(pack_audio(latents), pipeline._pack_audio_latents(latents))
    assert torch.equal(unpack_audio(pack_audio(latents), 8), latents)
