"""LTX-2 behind the contract of adapters: video and sound as one tensor, or video alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ltx2_pipeline import FPS, open_pipeline

from fastvideo_core.errors import DataError
from fastvideo_ltx.family import LtxFamily

STREAMS = [("video",), ("video", "audio")]


@pytest.fixture
def raw() -> dict[str, Any]:
    """Two samples as core's loader gives them."""
    generator = torch.Generator().manual_seed(5)
    return {
        "vae_latent": torch.randn(2, 128, 2, 2, 3, generator=generator),
        "audio_latent": torch.randn(2, 8, 9, 16, generator=generator),
        "text_embedding": torch.randn(2, 9, 32, generator=generator),
        "text_embedding_length": torch.tensor([9, 4]),
        "info": [{"id": "one", "fps": FPS}, {"id": "two", "fps": FPS}],
        "vae_latent_normalised": False,
    }


@pytest.fixture
def build(run_config, tiny_ltx2):
    """Adapter and roles (a trainable student, a frozen teacher), negative prompt encoded."""

    def make(**pipeline: Any) -> tuple[Any, Any]:
        roles = {"student": True, "teacher": False}
        cfg = run_config(roles, paths=dict.fromkeys(roles, tiny_ltx2), pipeline=pipeline)
        built = LtxFamily().build(cfg)
        built.adapter.on_train_start()
        return built.adapter, built.bundle

    return make


def test_latents_are_normalised_and_packed_as_the_pipeline_has_them(build, raw, tiny_ltx2):
    adapter, _ = build()
    batch = adapter.prepare_batch(raw)
    pipeline = open_pipeline(tiny_ltx2)
    vae, audio_vae = pipeline.vae, pipeline.audio_vae
    video = pipeline._pack_latents(
        pipeline._normalize_latents(raw["vae_latent"], vae.latents_mean, vae.latents_std, vae.config.scaling_factor)
    )
    audio = pipeline._normalize_audio_latents(
        pipeline._pack_audio_latents(raw["audio_latent"]), audio_vae.latents_mean, audio_vae.latents_std
    )
    assert torch.equal(batch.latents, torch.cat([video, audio], dim=1))


def test_normalised_latents_stay_as_they_are(build, raw):
    adapter, _ = build()
    batch = adapter.prepare_batch({**raw, "vae_latent_normalised": True, "audio_latent_normalised": True})
    assert torch.equal(batch.latents[:, 0], raw["vae_latent"][:, :, 0, 0, 0])
    assert torch.equal(batch.latents[:, 12], raw["audio_latent"][:, :, 0].flatten(1))


def test_sound_that_is_longer_than_the_picture_is_cut(build, raw):
    adapter, _ = build()
    longer = torch.cat([raw["audio_latent"], torch.zeros(2, 8, 3, 16)], dim=2)
    assert torch.equal(
        adapter.prepare_batch({**raw, "audio_latent": longer}).latents, adapter.prepare_batch(raw).latents
    )


@pytest.mark.parametrize("audio_weight", [1.0, 0.5, 0.0])
def test_each_stream_counts_as_a_whole_in_the_loss(build, raw, audio_weight):
    adapter, _ = build(audio_loss_weight=audio_weight)
    weight = adapter.prepare_batch(raw).loss_weight
    error = torch.cat([torch.full((2, 12, 128), 3.0), torch.full((2, 9, 128), 5.0)], dim=1)
    loss = (weight * error).mean() / weight.expand_as(error).mean()
    assert float(loss) == pytest.approx((3 + audio_weight * 5) / (1 + audio_weight))
    assert float(weight.mean()) == pytest.approx(1)


def test_given_first_frames_have_no_loss_whatever_the_stream_s_weight(build, raw):
    adapter, _ = build(first_frame_probability=1.0)
    batch = adapter.prepare_batch(raw)
    weight = batch.loss_weight.expand(2, 21, 1)[..., 0]
    assert (weight == 0).tolist() == [[True] * 6 + [False] * 15] * 2
    # the video's part of the loss stays (V + a A) / (1 + a)'s
    assert weight[:, :12].sum(1).tolist() == pytest.approx(weight[:, 12:].sum(1).tolist())


def test_a_mask_moves_nothing_between_the_streams(build, raw):
    adapter, _ = build(audio_loss_weight=0.5)
    mask = torch.zeros(2, 1, *raw["vae_latent"].shape[2:])
    mask[:, :, -1, -1, -1] = 0.25
    weight = adapter.prepare_batch({**raw, "loss_mask": mask}).loss_weight
    error = torch.cat([torch.full((2, 12, 128), 3.0), torch.full((2, 9, 128), 5.0)], dim=1)
    error[:, :11] = 1e6
    loss = (weight * error).mean() / weight.expand_as(error).mean()
    assert float(loss) == pytest.approx((3 + 0.5 * 5) / 1.5)


@pytest.mark.parametrize("streams", STREAMS)
def test_data_free_latents_have_the_tokens_of_the_data(build, raw, streams):
    adapter, _ = build(streams=streams)
    zeros = adapter.prepare_batch(raw, latents_source="zeros")
    data = adapter.prepare_batch(raw)
    assert zeros.latents.shape == data.latents.shape == (2, 12 if streams == ("video",) else 21, 128)
    assert zeros.extras["layout"] == data.extras["layout"]
    assert not zeros.latents.any()


def test_video_alone_needs_no_sound_in_the_data(build, raw):
    del raw["audio_latent"]
    adapter, _ = build(streams=("video",))
    assert adapter.prepare_batch(raw).latents.shape == (2, 12, 128)
    adapter, _ = build()
    with pytest.raises(
        DataError, match=r"(?s)sample one: the data holds no audio_latent.*with_sound/.*streams: \[video\]"
    ):
        adapter.prepare_batch(raw)


def test_foreign_sound_is_refused(build, raw):
    adapter, _ = build()
    with pytest.raises(DataError, match=r"audio_latent has shape \[4, 9, 16\]\n    allowed: \[8, T, 16\]"):
        adapter.prepare_batch({**raw, "audio_latent": raw["audio_latent"][:, :4]})


@pytest.mark.parametrize("streams", STREAMS)
def test_guidance_is_one_call_on_both_halves(build, raw, streams):
    adapter, bundle = build(streams=streams)
    batch = adapter.prepare_batch(raw)
    t = torch.tensor([700.0, 300.0])
    noisy = adapter.add_noise(batch.latents, torch.randn_like(batch.latents), t.reshape(2, 1, 1))
    with torch.no_grad():
        halves = [
            adapter.predict_x0(bundle["teacher"], noisy, t.reshape(2, 1, 1), batch, conditional=c)
            for c in (True, False)
        ]
        guided = adapter.predict_x0_guided(bundle["teacher"], noisy, t.reshape(2, 1, 1), batch, guidance_scale=3.0)
    conditional, unconditional = halves
    assert (conditional - unconditional).abs().max() > 1e-4
    torch.testing.assert_close(guided, unconditional + 3 * (conditional - unconditional), rtol=0, atol=2e-5)


def test_sound_and_picture_see_each_other_only_with_both_streams(build, raw):
    adapter, bundle = build()
    batch = adapter.prepare_batch(raw)
    t = torch.full((2, 1, 1), 500.0)
    other = batch.latents.clone()
    other[:, 12:] += 1
    with torch.no_grad():
        video = [
            adapter.predict_noise(bundle["teacher"], latents, t, batch, conditional=True)[:, :12]
            for latents in (batch.latents, other)
        ]
    assert (video[0] - video[1]).abs().max() > 1e-6


@pytest.mark.parametrize("streams", STREAMS)
def test_a_gradient_reaches_the_parameters_of_the_trained_streams_alone(build, raw, streams):
    adapter, bundle = build(streams=streams)
    batch = adapter.prepare_batch(raw)
    t = torch.full((2, 1, 1), 500.0)
    adapter.backward(
        adapter.predict_noise(bundle["student"], batch.latents, t, batch, conditional=True).square().mean(), None
    )
    named = dict(bundle["student"].modules["transformer"].named_parameters())
    sound = {name for name in named if any(word in name for word in ("audio", "av_cross", "a2v_cross"))}
    without = {name for name, parameter in named.items() if parameter.grad is None}
    assert without == (sound if streams == ("video",) else set())


def test_features_are_those_of_the_video_stream(build, raw):
    adapter, bundle = build()
    batch = adapter.prepare_batch(raw)
    t = torch.full((2, 1, 1), 500.0)
    features = adapter.extract_features(bundle["student"], batch.latents, t, batch, conditional=True)
    assert [tuple(one.shape) for one in features] == [(2, 12, 32)] * 2
    assert adapter.feature_channels(bundle["student"]) == (32, 32)


# --- trajectories -----------------------------------------------------------------------------------------------------


def trajectory_of(raw: dict[str, Any], *, sound: bool) -> dict[str, Any]:
    """Three states of each sample, in the layout that clips are stored in, and the end's own normalised latents."""
    generator = torch.Generator().manual_seed(6)
    states = torch.randn(2, 3, 128, 2, 2, 3, generator=generator)
    found = {"trajectory_latents": states, "trajectory_timesteps": torch.tensor([[1000.0, 600.0, 0.0]] * 2)}
    if sound:
        found["trajectory_audio_latents"] = torch.randn(2, 3, 8, 9, 16, generator=generator)
    return {**found, **{name: raw[name] for name in ("text_embedding", "text_embedding_length", "info")}}


@pytest.mark.parametrize("streams", STREAMS, ids="+".join)
def test_states_are_packed_as_clips_are_and_come_apart_again(build, raw, streams):
    adapter, _ = build(streams=list(streams))
    stored = trajectory_of(raw, sound="audio" in streams)
    batch = adapter.prepare_batch(stored, latents_source="trajectory")
    states = batch.trajectory.states
    assert states.shape[:2] == (2, 3)
    assert torch.equal(states[:, -1], batch.latents)
    assert batch.trajectory.timesteps.tolist() == [[1000.0, 600.0, 0.0]] * 2
    for number in range(3):
        apart = adapter.unpack_latents(states[:, number], batch)
        assert torch.equal(apart["vae_latent"], stored["trajectory_latents"][:, number])
        assert ("audio_latent" in apart) == ("audio" in streams)
        if "audio" in streams:
            tokens = apart["audio_latent"].shape[2]
            assert torch.equal(apart["audio_latent"], stored["trajectory_audio_latents"][:, number, :, :tokens])


def test_the_weights_of_the_streams_hold_for_trajectories(build, raw):
    adapter, _ = build(audio_loss_weight=0.5)
    clips = adapter.prepare_batch(raw)
    batch = adapter.prepare_batch(trajectory_of(raw, sound=True), latents_source="trajectory")
    assert torch.equal(batch.loss_weight, clips.loss_weight)


def test_trajectories_without_the_sound_that_is_trained_are_refused(build, raw):
    adapter, _ = build()
    with pytest.raises(DataError, match="audio_latent"):
        adapter.prepare_batch(trajectory_of(raw, sound=False), latents_source="trajectory")
