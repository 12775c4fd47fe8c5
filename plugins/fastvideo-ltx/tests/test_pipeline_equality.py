"""The adapter's network call is the pipeline's: the same inputs, captured inside the real pipelines, give the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import LTXConditionPipeline, LTXImageToVideoPipeline, LTXPipeline
from torch import Tensor

from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_ltx.adapter import CLEAN, FPS, GIVEN, LAYOUT, TEXT, TEXT_MASK
from fastvideo_ltx.family import LtxFamily
from fastvideo_ltx.layout import TokenLayout, pack_video, unpack_video

SIZE = {"height": 64, "width": 96, "num_frames": 17}
LAYOUT_OF_SIZE = TokenLayout(3, 2, 3)


class Recorder:
    """The inputs and the output of every call of a transformer."""

    def __init__(self, transformer: torch.nn.Module) -> None:
        self.calls: list[tuple[dict[str, Any], Tensor]] = []
        transformer.register_forward_hook(self._take, with_kwargs=True)

    def _take(self, module, args, kwargs, output):
        self.calls.append((kwargs, output[0]))


def record(kind: Any, path: str, prompt: str = "a cat", **options: Any) -> tuple[Any, Recorder]:
    pipeline = kind.from_pretrained(path)
    pipeline.set_progress_bar_config(disable=True)
    recorder = Recorder(pipeline.transformer)
    generator = torch.Generator().manual_seed(0)
    pipeline(prompt=prompt, generator=generator, num_inference_steps=2, output_type="latent", **SIZE, **options)
    return pipeline, recorder


def batch_of(inputs: dict[str, Any], frame_rate: float, **more: Tensor) -> TrainingBatch:
    size = len(inputs["hidden_states"])
    conditioning = {
        TEXT: inputs["encoder_hidden_states"],
        TEXT_MASK: inputs["encoder_attention_mask"],
    }
    context = {FPS: torch.full((size,), frame_rate, dtype=torch.float64), **more}
    return TrainingBatch(inputs["hidden_states"], conditioning, context=context, extras={LAYOUT: LAYOUT_OF_SIZE})


@pytest.mark.parametrize("frame_rate", [24, 25, 29.97])
@pytest.mark.parametrize("kind", [LTXPipeline, LTXConditionPipeline])
def test_the_velocity_is_the_pipeline_s_bit_for_bit(run_config, tiny, tiny_condition, kind, frame_rate):
    path = tiny if kind is LTXPipeline else tiny_condition
    pipeline, recorder = record(kind, path, frame_rate=frame_rate, guidance_scale=3.0)
    built = LtxFamily().build(run_config(paths={"student": path}))
    handle = RoleHandle("student", {"transformer": pipeline.transformer})
    assert len(recorder.calls) == 2
    for inputs, expected in list(recorder.calls):
        with torch.no_grad():
            actual = built.adapter.predict_noise(
                handle,
                inputs["hidden_states"],
                inputs["timestep"].reshape(-1),
                batch_of(inputs, frame_rate),
                conditional=True,
            )
        assert torch.equal(actual, expected)
    assert len(recorder.calls[0][0]["hidden_states"]) == 2  # both halves of guidance


def test_the_two_pipelines_place_latent_frames_differently_in_time(run_config, tiny, tiny_condition, raw_batch):
    velocities = []
    for path in (tiny, tiny_condition):
        built = LtxFamily().build(run_config(paths={"student": path}))
        batch = built.adapter.prepare_batch(raw_batch)
        with torch.no_grad():
            t = torch.full((2,), 500.0)
            velocities.append(
                built.adapter.predict_noise(built.bundle["student"], batch.latents, t, batch, conditional=True)
            )
    assert (velocities[0] - velocities[1]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", [LTXImageToVideoPipeline, LTXConditionPipeline])
def test_a_given_first_frame_is_the_image_to_video_pipeline_s(run_config, tiny, tiny_condition, kind):
    path = tiny if kind is LTXImageToVideoPipeline else tiny_condition
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    options = {} if kind is LTXImageToVideoPipeline else {"image_cond_noise_scale": 0.0}
    pipeline, recorder = record(kind, path, image=image, frame_rate=25, guidance_scale=1.0, **options)
    built = LtxFamily().build(run_config(paths={"student": path}))
    handle = RoleHandle("student", {"transformer": pipeline.transformer})
    first = LAYOUT_OF_SIZE.first_frame
    for inputs, expected in list(recorder.calls):
        given = inputs["timestep"].reshape(1, -1) == 0
        assert given[:, :first].all()
        assert not given[:, first:].any()
        clean = inputs["hidden_states"]
        batch = batch_of(inputs, 25, **{GIVEN: given, CLEAN: clean})
        spoiled = clean.clone()
        spoiled[:, :first] = torch.nan  # the adapter puts the clean tokens in itself
        t = inputs["timestep"].reshape(-1).max().reshape(1)
        with torch.no_grad():
            actual = built.adapter.predict_noise(handle, spoiled, t, batch, conditional=True)
        assert torch.equal(actual, expected)


def test_captions_are_padded_and_masked_as_the_pipeline_does(run_config, tiny):
    pipeline, recorder = record(LTXPipeline, tiny, prompt="two dogs run", guidance_scale=1.0)
    built = LtxFamily().build(run_config(pipeline={"negative_prompt": "two dogs run"}))
    built.adapter.on_train_start()
    raw = {"text_embedding": torch.zeros(1, 3, 32), "vae_latent": torch.zeros(1, 128, 3, 2, 3)}
    negative = built.adapter.prepare_batch(raw).negative_conditioning
    inputs, expected = recorder.calls[0]
    assert torch.equal(negative[TEXT_MASK], inputs["encoder_attention_mask"])
    kept = inputs["encoder_attention_mask"]
    assert torch.equal(negative[TEXT][kept], inputs["encoder_hidden_states"][kept])
    batch = TrainingBatch(
        inputs["hidden_states"],
        negative,
        context={FPS: torch.tensor([25.0], dtype=torch.float64)},
        extras={LAYOUT: LAYOUT_OF_SIZE},
    )
    handle = RoleHandle("student", {"transformer": pipeline.transformer})
    with torch.no_grad():  # what stands behind the caption differs (zeros here), and is not seen
        actual = built.adapter.predict_noise(
            handle, inputs["hidden_states"], inputs["timestep"], batch, conditional=True
        )
    assert torch.equal(actual, expected)


def test_packing_is_the_pipeline_s_and_has_an_inverse():
    latents = torch.randn(2, 5, 3, 2, 4)
    packed = pack_video(latents)
    assert torch.equal(packed, LTXPipeline._pack_latents(latents))
    assert torch.equal(unpack_video(packed, TokenLayout(3, 2, 4)), latents)
    with_audio = torch.cat([packed, torch.randn(2, 7, 5)], dim=1)
    assert torch.equal(unpack_video(with_audio, TokenLayout(3, 2, 4, audio=7)), latents)
    assert (TokenLayout(3, 2, 4, audio=7).video, TokenLayout(3, 2, 4, audio=7).total) == (24, 31)


def test_latents_are_normalised_as_the_pipeline_s(components, raw_batch, tiny):
    vae = LTXPipeline.from_pretrained(tiny).vae
    stored = raw_batch["vae_latent"]
    expected = LTXPipeline._normalize_latents(stored, vae.latents_mean, vae.latents_std, 1.0)
    batch = components.adapter.prepare_batch(raw_batch)
    torch.testing.assert_close(batch.latents, pack_video(expected))
    raw_batch["vae_latent_normalised"] = True
    assert torch.equal(components.adapter.prepare_batch(raw_batch).latents, pack_video(stored))
    assert np.isclose(vae.latents_std.mean().item(), 1.0, atol=0.2)
