"""From pixels to latents and back: what `preprocess` stores, training normalises, and the sampler decodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.modules.module import register_module_forward_pre_hook

from fastvideo_testing.family_samplers import SamplerChecks, Training
from fastvideo_testing.network_calls import Arrangement, NetworkCall
from fastvideo_testing.prepared_family import PreparedFamily, one_sample, smooth_clip
from fastvideo_testing.suite import needs

_ORDERS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "": lambda frames: frames,
    "red and blue are swapped (BGR in the place of RGB)": lambda frames: frames.flip(-1),
    "the picture is mirrored": lambda frames: frames.flip(-2),
    "the picture is upside down": lambda frames: frames.flip(-3),
    "time runs backwards": lambda frames: frames.flip(0),
    "bright and dark are swapped: a sign is wrong": lambda frames: 255 - frames,
}


class RoundTripChecks(SamplerChecks):
    """A network that knows the answer makes the sampler decode the very latents of a clip."""

    @needs("sampler")
    @needs("encoder")
    def test_latents_of_a_clip_are_decoded_to_the_clip(self, prepared: PreparedFamily, tmp_path: Path) -> None:
        assert prepared.clip is not None
        training, stored = self._training(prepared), {}
        encoder = self._encoder(prepared.run)
        frames = smooth_clip(prepared.clip)
        with torch.no_grad():
            (stored,) = encoder.encode_videos(frames)
        raw = {**prepared.one_row(training.components), **{name: value[None] for name, value in stored.items()}}
        batch = training.components.adapter.prepare_batch(raw, generator=torch.Generator().manual_seed(0))
        training = Training(training.components, one_sample(batch, 0), training.prompt)
        answer = answering(training)
        with _inputs_of_modules() as seen:
            asked: dict[str, Any] = {"sampler_kind": "ode", "sampling_timesteps": (training.total,)}
            video = self._sample(prepared, training, tmp_path, replace=answer, **asked).video
        if encoder.describe().get("latents_normalised") == "false" and "vae_latent" in stored:
            _assert_decodes(stored["vae_latent"], seen)
        if video.frames.shape == frames[0].shape:
            _assert_same_picture(frames[0].float(), video.frames.float())

    @needs("encoder")
    def test_latents_that_are_stored_normalised_are_taken_as_they_are(self, prepared: PreparedFamily) -> None:
        if self._encoder(prepared.run).describe().get("latents_normalised") != "true":
            pytest.skip("its encoder stores latents as its autoencoder gives them")
        components = prepared.components()
        raw = prepared.one_row(components)
        if "vae_latent" not in raw:
            pytest.skip("its latents have another name")
        batch = components.adapter.prepare_batch(raw, generator=torch.Generator().manual_seed(0))
        stored = raw["vae_latent"].double().flatten()
        found = batch.latents.double().flatten().sort().values
        if len(found) < len(stored):
            return
        place = torch.searchsorted(found, stored).clamp(1, len(found) - 1)
        off = torch.minimum((found[place] - stored).abs(), (found[place - 1] - stored).abs()).max()
        assert float(off) <= 1e-3 * float(stored.abs().max()), (
            "the encoder says latents_normalised: true, and prepare_batch changes the numbers that are stored: latents are "
            "normalised (or scaled) twice"
        )


def answering(training: Training) -> Callable[[NetworkCall], Sequence[Tensor]]:
    """What makes the network give the prediction whose x0 is the batch's latents; skips where it cannot be told how."""
    names, where = training.latents_in(training.total)
    drawn: list[Tensor] = []

    def draw(call: NetworkCall) -> Sequence[Tensor]:
        generator = torch.Generator().manual_seed(9)
        drawn[:] = [torch.randn(output.shape, generator=generator) for output in call.outputs]
        return drawn

    prediction = training.prediction(training.noise(), training.total, draw)
    out = Arrangement.find(prediction, drawn)
    if where is None or out is None:
        pytest.skip(
            "the network's latents are not the adapter's in another order, so that none can be put in their place"
        )

    def answer(call: NetworkCall) -> Sequence[Tensor]:
        sizes = [call.inputs[name].shape for name in names if name in call.inputs]
        if tuple(sizes) != where.sizes:
            pytest.skip("the sampler calls the network with latents of another shape than training does")
        noise = where.read([call.inputs[name] for name in names])
        adapter: Any = training.components.adapter
        latents = training.batch.latents
        return out.write(adapter.prediction_target(latents, noise.to(latents), torch.tensor([training.total])))

    return answer


@contextmanager
def _inputs_of_modules() -> Iterator[list[Tensor]]:
    """Inside, the list grows with the tensors of five dimensions or four that modules are called with."""
    seen: list[Tensor] = []

    def keep(module: Any, args: Any) -> None:
        seen.extend(arg.detach().clone() for arg in args if isinstance(arg, Tensor) and arg.ndim in (4, 5))

    hook = register_module_forward_pre_hook(keep)
    try:
        yield seen
    finally:
        hook.remove()


def _assert_decodes(stored: Tensor, seen: Sequence[Tensor]) -> None:
    """The autoencoder decodes what it gave, where one of its modules shows it."""
    inputs = [one[0] for one in seen if one.shape[1:] == stored.shape and len(one) == 1]
    wanted = stored.double()
    if any(torch.allclose(one.double(), wanted, atol=1e-3 * float(wanted.abs().max())) for one in inputs):
        return
    for one in inputs:
        rows = torch.stack([wanted.flatten(1), one.double().flatten(1)], dim=1)  # [C, 2, numbers]
        related = [float(torch.corrcoef(row)[0, 1]) for row in rows]
        assert min(related) < 1 - 1e-6, (
            "the autoencoder is asked to decode its own latents times and plus a constant for each channel: between "
            "encode_videos, prepare_batch and the sampler latents are normalised twice, or taken back not at all"
        )


def _assert_same_picture(clip: Tensor, made: Tensor) -> None:
    """Where the video resembles the clip at all, it resembles it as it is."""

    def likeness(order: Callable[[Tensor], Tensor]) -> float:
        return float(torch.corrcoef(torch.stack([clip.flatten(), order(made).flatten()]))[0, 1])

    if float(made.std()) < 1e-3:
        return
    found = {called: likeness(order) for called, order in _ORDERS.items()}
    best = max(found, key=lambda called: found[called])
    if found[best] < 0.85:  # an autoencoder of random weights gives anything
        return
    advice = "between encode_videos and the frames of the sampler"
    assert not best, f"{advice} {best}"
    slope = float(((made - made.mean()) * (clip - clip.mean())).mean() / clip.var())
    offset = float(made.mean() - clip.mean())
    scaled = abs(slope - 1) < 0.2 and abs(offset) < 25
    assert scaled, (
        f"{advice} pixels are scaled: contrast times {slope:.2g}, brightness plus {offset:.3g} of 255. Both ends must agree "
        "on what pixels are to the autoencoder: [-1, 1], [0, 1] or [0, 255]"
    )
