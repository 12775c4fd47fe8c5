"""What a family's sampler must do: call the network as training does, at the levels that it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.family import ModelComponents
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.contracts.validator import SampledVideo, ValidationPrompt, ValidationRequest
from fastvideo_core.diffusion.rollout import transition
from fastvideo_testing.compare import assert_close
from fastvideo_testing.family_suite import SHIFTS, FamilySuite, refusal_skips
from fastvideo_testing.network_calls import Arrangement, NetworkCall, Replace, record_calls
from fastvideo_testing.prepared_family import PreparedFamily, disturb, one_sample
from fastvideo_testing.suite import needs

_GUIDANCE = 3.0


@dataclass(frozen=True)
class Sampling:
    """A sampled video, and the calls of the network on the way."""

    video: SampledVideo
    calls: list[NetworkCall]


@dataclass(frozen=True)
class Training:
    """A family ready to be compared with its sampler: the same caption and size in a batch of one."""

    components: ModelComponents
    batch: TrainingBatch
    prompt: ValidationPrompt

    @property
    def handle(self) -> RoleHandle:
        return self.components.bundle["student"]

    @property
    def total(self) -> float:
        adapter: Any = self.components.adapter
        return float(adapter.num_train_timesteps)

    def noise(self, seed: int = 0) -> Tensor:
        return torch.randn(self.batch.latents.shape, generator=torch.Generator().manual_seed(seed))

    def call(self, noisy: Tensor, level: float, *, conditional: bool = True) -> NetworkCall:
        """How the adapter calls the network."""
        adapter: Any = self.components.adapter
        with torch.no_grad(), record_calls(self.handle.modules) as calls:
            adapter.predict_noise(self.handle, noisy, torch.tensor([level]), self.batch, conditional=conditional)
        assert len(calls) == 1, f"predict_noise called the networks of the handle {len(calls)} times, not once"
        return calls[0]

    def prediction(self, noisy: Tensor, level: float, replace: Replace) -> Tensor:
        """What predict_noise makes of other outputs of the network."""
        adapter: Any = self.components.adapter
        with torch.no_grad(), record_calls(self.handle.modules, replace):
            out: Tensor = adapter.predict_noise(self.handle, noisy, torch.tensor([level]), self.batch, conditional=True)
        return out

    def x0(self, noisy: Tensor, level: float, guidance_scale: float) -> Tensor:
        adapter: Any = self.components.adapter
        with torch.no_grad():
            t = torch.tensor([level])
            if guidance_scale == 1:
                out: Tensor = adapter.predict_x0(self.handle, noisy, t, self.batch, conditional=True)
            else:
                out = adapter.predict_x0_guided(self.handle, noisy, t, self.batch, guidance_scale=guidance_scale)
        return out

    def latents_in(self, level: float) -> tuple[tuple[str, ...], Arrangement | None]:
        """The network's inputs that hold the noisy latents, and how; None where they hold something else besides."""
        one, other = self.call(self.noise(), level), self.call(self.noise(1), level)
        names = tuple(name for name in one.inputs if not torch.equal(one.inputs[name], other.inputs[name]))
        return names, Arrangement.find(self.noise(), [one.inputs[name] for name in names])

    def noisy_in(self, call: NetworkCall, level: float, names: Sequence[str], where: Arrangement) -> Tensor:
        """x_t of a call at `level`: what the network was given, but for the factor of a family that is not flow matching."""
        x, own = self.noise(), self.call(self.noise(), level)
        given = where.read([own.inputs[name] for name in names])
        found = where.read([call.inputs[name] for name in names])
        return found if torch.equal(given, x) else found * ((x * x).sum() / (given * x).sum())

    def levels_of(self, calls: Sequence[NetworkCall]) -> list[float] | None:
        """The noise level of each call, in t, by what the network is told; None where that is no linear function of t."""
        noisy, at = self.noise(), [0.25 * self.total, 0.5 * self.total, 0.75 * self.total]
        told = [self.call(noisy, level).inputs for level in at]
        for name, value in told[0].items():
            low, middle, high = (float(inputs[name].double().mean()) for inputs in told)
            linear = abs(high + low - 2 * middle) <= 1e-3 * abs(high - low)
            if value.is_floating_point() and high != low and linear and all(name in call.inputs for call in calls):
                slope = (high - low) / (at[2] - at[0])
                return [at[0] + (float(call.inputs[name].double().mean()) - low) / slope for call in calls]
        return None


class SamplerChecks(FamilySuite):
    """Videos from prompts, with any role, as the method asks for them."""

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _training(self, prepared: PreparedFamily) -> Training:
        components = prepared.components()
        raw = prepared.one_row(components)
        batch = components.adapter.prepare_batch(raw, generator=torch.Generator().manual_seed(0))
        return Training(components, one_sample(batch, 0), self._prompt(prepared, raw))

    def _prompt(self, prepared: PreparedFamily, raw: Mapping[str, Any]) -> ValidationPrompt:
        clip = prepared.clip
        if clip is None:
            pytest.skip("the suite makes no data of this family, whose captions and sizes could be sampled")
        info = raw["info"][0]
        images = self.prompt_images(prepared, prepared.folder / "clips" / info["file_name"])
        prompt = ValidationPrompt(info["caption"], height=clip.height, width=clip.width, num_frames=clip.num_frames)
        return changed(prompt, image_path=images.get("image_path"), last_image_path=images.get("last_image_path"))

    def _sample(
        self,
        prepared: PreparedFamily,
        training: Training,
        folder: Path,
        *,
        replace: Replace | None = None,
        **asked: Any,
    ) -> Sampling:
        """A video of a role that is not the sampler's own."""
        path = prepared.run["roles"]["student"]["path"]
        sampler = self._family("sampler").sampler(path, prepared.section(), device=torch.device("cpu"))
        handle = training.handle
        request = ValidationRequest(handle, folder, **asked)
        with (
            torch.no_grad(),
            record_calls(handle.modules, replace) as calls,
            record_calls(sampler.handle.modules) as own,
        ):
            video = sampler.sample(request, training.prompt, torch.Generator().manual_seed(5))
        found = "its own network" if own else "" if calls else "no network"
        assert not found, (
            f"the sampler was asked for the role '{handle.name}' and called {found}: it must call "
            "request.sample_handle.modules, so that validation shows the role that is trained"
        )
        return Sampling(video, calls)

    # --- few steps ----------------------------------------------------------------------------------------------------

    @needs("sampler")
    @needs("encoder")
    def test_few_steps_are_sampled_as_they_are_trained(self, prepared: PreparedFamily, tmp_path: Path) -> None:
        training = self._training(prepared)
        disturb(training.handle)
        levels = (training.total, 0.6 * training.total)
        made = self._sample(prepared, training, tmp_path, sampler_kind="ode", sampling_timesteps=levels)
        assert len(made.calls) == len(levels), (
            f"sampling on {len(levels)} timesteps called the network {len(made.calls)} times: request.sampling_timesteps "
            "are the exact levels of few-step sampling, one call each"
        )
        told = training.levels_of(made.calls)
        if told is not None:
            for index, (found, wanted) in enumerate(zip(told, levels, strict=True)):
                assert abs(found - wanted) < 1e-3 * training.total, (
                    f"call {index + 1} is made at t = {found:.4g}, and request.sampling_timesteps says {wanted:.4g}: they "
                    "are shifted already, and taken as they are"
                )
        names, where = training.latents_in(training.total)
        if where is None or not all(name in call.inputs for call in made.calls for name in names):
            return
        noisy = [training.noisy_in(call, t, names, where) for call, t in zip(made.calls, levels, strict=True)]
        spread = float((noisy[0] ** 2).mean().sqrt())
        assert noisy[0].numel() < 64 or 0.7 < spread < 1.4, (
            f"few-step sampling starts from noise with a spread of {spread:.2g}; x_t at t = {training.total:g} is noise of "
            "spread 1 and nothing else"
        )
        for call, x, level in zip(made.calls, noisy, levels, strict=True):
            _assert_called_alike(call, training.call(x, level), level, self.tolerance)
        x0 = training.x0(noisy[0], levels[0], 1.0)
        assert_close(
            "the second call's noisy latents", noisy[1],
            transition(noisy[0], x0, 1.0, 0.6, kind="ode"), rtol=10 * self.tolerance,
            advice="from the first call's x0 an ode step keeps the noise that x_t and x0 imply, as "
            "fastvideo_core.diffusion.rollout does",
        )  # fmt: skip

    @needs("sampler")
    @needs("encoder")
    def test_sde_draws_fresh_noise_between_steps(self, prepared: PreparedFamily, tmp_path: Path) -> None:
        training = self._training(prepared)
        levels = (training.total, 0.6 * training.total)
        made = self._sample(prepared, training, tmp_path, sampler_kind="sde", sampling_timesteps=levels)
        names, where = training.latents_in(training.total)
        if (
            where is None
            or len(made.calls) != 2
            or not all(name in call.inputs for call in made.calls for name in names)
        ):
            return
        first, second = (training.noisy_in(call, t, names, where) for call, t in zip(made.calls, levels, strict=True))
        x0 = training.x0(first, levels[0], 1.0)
        as_ode = transition(first, x0, 1.0, 0.6, kind="ode")
        assert not torch.allclose(second, as_ode, atol=1e-3), (
            'request.sampler_kind is "sde", and the step keeps its noise as "ode" does: a student that was trained for '
            "sde gets other inputs than in training; pass the kind on to the rollout"
        )
        noise = (second - 0.4 * x0) / 0.6
        spread = float((noise**2).mean().sqrt())
        assert noise.numel() < 64 or 0.6 < spread < 1.5, (
            f"an sde step is (1 - sigma) x0 + sigma noise; the noise that it drew has a spread of {spread:.2g}, not 1"
        )

    @needs("sampler")
    @needs("encoder")
    @needs("negative")
    def test_guidance_is_sampled_as_it_is_trained(self, prepared: PreparedFamily, tmp_path: Path) -> None:
        training = self._training(prepared)
        levels = (training.total, 0.6 * training.total)
        asked: dict[str, Any] = {"sampler_kind": "ode", "sampling_timesteps": levels, "guidance_scale": _GUIDANCE}
        made = self._sample(prepared, training, tmp_path, **asked)
        size = len(training.call(training.noise(), levels[0]).outputs[0])
        rows = [row for call in made.calls for row in _rows(call, size)]
        assert len(rows) > len(levels), (
            f"request.guidance_scale is {_GUIDANCE:g}, and each step calls the network on one half only: pass the scale "
            "on, and give the batch the negative prompt"
        )
        names, where = training.latents_in(training.total)
        if where is None or not all(name in row.inputs for row in rows for name in names):
            return
        noisy = [training.noisy_in(rows[place], levels[place], names, where) for place in (0, -1)]
        of_step = [row for row in rows if all(torch.equal(row.inputs[n], rows[0].inputs[n]) for n in names)]
        for conditional, half in ((True, "caption"), (False, "negative prompt")):
            wanted = training.call(noisy[0], levels[0], conditional=conditional)
            nearest = min(of_step, key=lambda row: _distance(row, wanted))
            _assert_called_alike(nearest, wanted, levels[0], self.tolerance, f", with the {half},")
        x0 = training.x0(noisy[0], levels[0], _GUIDANCE)
        assert_close(
            f"the second step's noisy latents at guidance {_GUIDANCE:g}", noisy[1],
            transition(noisy[0], x0, 1.0, 0.6, kind="ode"), rtol=10 * self.tolerance,
            advice="guidance is u + w (c - u) with w = request.guidance_scale, as in predict_x0_guided",
        )  # fmt: skip

    # --- many steps ---------------------------------------------------------------------------------------------------

    @needs("sampler")
    @needs("encoder")
    def test_many_steps_are_as_many_as_asked_for(self, prepared: PreparedFamily, tmp_path: Path) -> None:
        training = self._training(prepared)
        calls = [len(self._sample(prepared, training, tmp_path, sampling_steps=steps).calls) for steps in (2, 3)]
        assert calls[0] < calls[1], (
            f"2 steps called the network {calls[0]} times, 3 steps {calls[1]} times: is request.sampling_steps read?"
        )

    @needs("sampler")
    @needs("encoder")
    @needs("flow_shift")
    def test_many_steps_are_shifted_once(self, prepared: PreparedFamily, tmp_path: Path) -> None:
        levels, shifts = [], []
        for value in SHIFTS:
            shifted = prepared.with_options(flow_shift=value)
            with refusal_skips(f"flow_shift {value:g}"):
                training = self._training(shifted)
            made = self._sample(shifted, training, tmp_path, sampling_steps=4)
            found = training.levels_of(made.calls)
            if found is None:
                return
            levels.append(torch.tensor(found, dtype=torch.float64))
            adapter: Any = training.components.adapter
            shifts.append(adapter.shift_and_clamp_timestep)
        if len(levels[0]) != len(levels[1]):
            return
        times = [levels[0]]
        for _ in range(2):
            times.append(shifts[1](times[-1]))
        off = [float((levels[1] - one).abs().sum()) for one in times]
        shown = (
            f"at flow_shift {SHIFTS[0]:g} the levels are {_numbers(levels[0])}, at {SHIFTS[1]:g} {_numbers(levels[1])}"
        )
        assert off[0] > 0.01 * float(levels[0].max()), (
            f"many-step sampling does not follow pipeline_config.flow_shift: {shown}; shift the levels by "
            "shift_and_clamp_timestep, as training does"
        )
        assert off[1] <= off[2], (
            f"many-step sampling shifts its levels twice: {shown}, and one shift gives {_numbers(times[1])}"
        )

    @needs("sampler")
    def test_sampler_and_adapter_shift_alike(self, prepared: PreparedFamily) -> None:
        adapter: Any = prepared.components().adapter
        path = prepared.run["roles"]["student"]["path"]
        sampler = self._family("sampler").sampler(path, prepared.section(), device=torch.device("cpu"))
        t = torch.linspace(0.1, 0.9, 9, dtype=torch.float64) * adapter.num_train_timesteps
        assert_close(
            "the sampler's shift_and_clamp_timestep", sampler.shift_and_clamp_timestep(t),
            adapter.shift_and_clamp_timestep(t), rtol=1e-6,
            advice="a student's schedule is shifted by it, and must be that of training: flow_shift is one, from "
            "pipeline_config",
        )  # fmt: skip

    # --- videos -------------------------------------------------------------------------------------------------------

    @needs("sampler")
    @needs("encoder")
    def test_a_video_has_the_size_and_rate_that_are_asked_for(self, prepared: PreparedFamily, tmp_path: Path) -> None:
        training = self._training(prepared)
        video = self._sample(
            prepared, training, tmp_path, sampling_timesteps=(training.total,), sampler_kind="ode"
        ).video
        prompt, shape = training.prompt, list(video.frames.shape)
        wanted = [prompt.num_frames, prompt.height, prompt.width, 3]
        assert shape == wanted, (
            f"a prompt of {prompt.num_frames} frames of {prompt.height} x {prompt.width} (height x width) gave frames "
            f"{shape}, not {wanted} [T, H, W, 3]: are the prompt's sizes read, and axes in order?"
        )
        trained = self._encoder(prepared.run).geometry.fps
        chosen = [value for value in dict(prepared.section()).values() if isinstance(value, (int, float))]
        assert video.fps == trained or video.fps in chosen, (
            f"sampled videos say {video.fps:g} frames per second, and the encoder's geometry says that the model was "
            f"trained on {trained:g}: they play too fast or too slow"
        )

    @needs("sampler")
    @needs("encoder")
    def test_a_video_brings_the_latents_that_were_decoded(self, prepared: PreparedFamily, tmp_path: Path) -> None:
        training = self._training(prepared)
        made = self._sample(prepared, training, tmp_path, sampling_timesteps=(training.total,), sampler_kind="ode")
        names, where = training.latents_in(training.total)
        unpack = getattr(training.components.adapter, "unpack_latents", None)
        if made.video.latents is None or where is None or unpack is None or len(made.calls) != 1:
            pytest.skip("the sampler gives no latents, or what it gives cannot be compared")
        x0 = training.x0(training.noisy_in(made.calls[0], training.total, names, where), training.total, 1.0)
        assert_close(
            "the video's latents", made.video.latents, unpack(x0, training.batch)["vae_latent"][0],
            rtol=10 * self.tolerance,
            advice="SampledVideo.latents are the normalised latents [C, T, H, W] that the decoder was given, without sound",
        )  # fmt: skip


def _rows(call: NetworkCall, size: int) -> list[NetworkCall]:
    """A call on several batches of `size` samples as one call for each."""
    count = max(1, len(call.outputs[0]) // size)
    parts: list[dict[str, Tensor]] = [{} for _ in range(count)]
    for name, value in call.inputs.items():
        whole = value.ndim > 0 and len(value) % count == 0 and len(value) >= count
        for part, piece in zip(parts, value.chunk(count) if whole else [value] * count, strict=True):
            part[name] = piece
    outputs = list(zip(*(output.chunk(count) for output in call.outputs), strict=True))
    return [NetworkCall(part, list(output)) for part, output in zip(parts, outputs, strict=True)]


def _distance(call: NetworkCall, wanted: NetworkCall) -> float:
    pairs = zip(call.outputs, wanted.outputs, strict=False)
    return sum(float((a.double() - b.double()).abs().max()) if a.shape == b.shape else float("inf") for a, b in pairs)


def _assert_called_alike(
    call: NetworkCall, wanted: NetworkCall, level: float, tolerance: float, half: str = ""
) -> None:
    """The network gave to the sampler what it gives to training at the same noisy latents and level."""
    differing = []
    for name, value in wanted.inputs.items():
        found = call.inputs.get(name)
        if found is None or found.shape != value.shape or torch.allclose(found.double(), value.double(), atol=1e-5):
            continue
        differing.append(name)
    told = f"; the inputs that differ: {', '.join(differing)}" if differing else ""
    for found, expected in zip(call.outputs, wanted.outputs, strict=True):
        assert_close(
            f"at t = {level:g} the network's output in sampling{half}", found, expected, rtol=10 * tolerance,
            advice="with the same latents, caption and size training (predict_noise) calls the network otherwise: text, "
            f"negative text, time, mask and frame rate must be made alike, in one place for both{told}",
        )  # fmt: skip


def _numbers(values: Tensor) -> str:
    return ", ".join(f"{value:.4g}" for value in values.tolist())
