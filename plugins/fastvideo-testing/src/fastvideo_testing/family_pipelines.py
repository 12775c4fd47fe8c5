"""A family held to its model's own pipeline: what reaches `scheduler.step` there, and what its autoencoder does."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from fastvideo_core.config.base import GuidedPipelineConfig
from fastvideo_testing.compare import assert_close
from fastvideo_testing.family_round_trips import answering
from fastvideo_testing.family_samplers import SamplerChecks, Training
from fastvideo_testing.family_suite import free_latents
from fastvideo_testing.prepared_family import PreparedFamily, smooth_clip
from fastvideo_testing.suite import needs

_NEGATIVE = "grey, out of focus"


@dataclass(frozen=True)
class PipelineCall:
    """What a pipeline is asked for, in the words of diffusers' pipelines; `images` are those of `prompt_images`, by its names."""

    prompt: str
    negative_prompt: str | None
    guidance_scale: float
    height: int
    width: int
    num_frames: int
    num_inference_steps: int = 2
    images: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class SchedulerStep:
    """A call of `scheduler.step`; lists of several where a pipeline has several streams, each with a scheduler.

    Args:
        model_output: what the pipeline makes of the network's output, guidance included.
        sample: x_t.
        level: the noise level sigma of `sample`, in [0, 1].
    """

    model_output: list[Tensor]
    sample: list[Tensor]
    level: float


class PipelineChecks(SamplerChecks):
    """The family's own pipeline, called with the same prompt, sees what we see."""

    pipeline_options: ClassVar[Mapping[str, Any]] = {}
    pipeline_sign: ClassVar[float] = 1.0

    # --- what a suite fills in ------------------------------------------------------------------------------------------

    def own_pipeline(self, path: str) -> Any:
        """The model's own pipeline, as its users load it from `path`: it has a `scheduler` and is called with a prompt."""
        raise AssertionError(
            f"nothing holds {self.called()} to its model: a sign, a time or a layout that is wrong throughout agrees with "
            "itself. Define own_pipeline(self, path) in the suite (of diffusers: `return MyPipeline.from_pretrained(path)`), "
            "or opt out of 'pipeline' in `unsupported` with the reason"
        )

    def run_pipeline(self, pipeline: Any, asked: PipelineCall) -> None:
        """Samples with the pipeline; `pipeline_options` are passed on, images are not."""
        negative = {} if asked.negative_prompt is None else {"negative_prompt": asked.negative_prompt}
        pipeline(
            prompt=asked.prompt,
            **negative,
            height=asked.height,
            width=asked.width,
            num_frames=asked.num_frames,
            num_inference_steps=asked.num_inference_steps,
            guidance_scale=asked.guidance_scale,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
            **self.pipeline_options,
        )

    def pipeline_level(self, scheduler: Any, index: int) -> float:
        """The noise level sigma at which the scheduler's step `index` begins; here as diffusers' flow schedulers keep it."""
        assert hasattr(scheduler, "sigmas"), (
            f"{type(scheduler).__name__} keeps no sigmas: say in pipeline_level at which sigma of "
            "x_t = (1 - sigma) x0 + sigma noise its steps begin, and in pipeline_axis what its latents and prediction are there"
        )
        sigma = float(scheduler.sigmas[index])
        return 1 - sigma if getattr(scheduler.config, "invert_sigmas", False) else sigma

    def pipeline_latents(self, parts: Sequence[Tensor]) -> Tensor:
        """A pipeline's latents, one tensor for each of its schedulers, in the adapter's layout."""
        assert len(parts) == 1, f"the pipeline has {len(parts)} schedulers: say in pipeline_latents how they are packed"
        return parts[0]

    def pipeline_axis(self, latents: Tensor, prediction: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """Latents and prediction of a pipeline with another noise axis as x_t and velocity of ours, at this noise level."""
        return latents, prediction

    def pipeline_encoded(self, pipeline: Any, frames: Tensor) -> Tensor:
        """What its autoencoder makes of frames [1, T, H, W, 3] in [0, 1], as `vae_latent` [C, T, H, W] is stored."""
        video = pipeline.video_processor.preprocess_video(frames.permute(0, 1, 4, 2, 3))
        latents: Tensor = pipeline.vae.encode(video).latent_dist.mode()
        return latents[0]

    def pipeline_decoded(self, pipeline: Any, latents: Tensor) -> Tensor:
        """Frames [T, H, W, 3] in [0, 1] of a `vae_latent` [1, C, T, H, W] as it is stored."""
        video = pipeline.vae.decode(latents, return_dict=False)[0]
        frames: Tensor = pipeline.video_processor.postprocess_video(video, output_type="pt")[0]
        return frames.permute(0, 2, 3, 1)

    # --- the checks -------------------------------------------------------------------------------------------------------

    @needs("pipeline")
    @needs("encoder")
    def test_predictions_are_those_of_the_model_s_own_pipeline(self, prepared: PreparedFamily) -> None:
        self._compare(prepared, 1.0)

    @needs("pipeline")
    @needs("encoder")
    @needs("negative")
    def test_guided_predictions_are_those_of_the_model_s_own_pipeline(self, prepared: PreparedFamily) -> None:
        self._compare(prepared, 3.0)

    @needs("pipeline")
    @needs("encoder")
    def test_stored_latents_are_those_of_the_model_s_own_pipeline(self, prepared: PreparedFamily) -> None:
        encoder = self._encoder(prepared.run)
        if encoder.describe().get("latents_normalised") != "false":
            pytest.skip("its encoder stores latents that are normalised already, which the pipeline does not give")
        pipeline = self.own_pipeline(prepared.run["roles"]["student"]["path"])
        assert prepared.clip is not None
        frames = smooth_clip(prepared.clip)
        with torch.no_grad():
            wanted = self.pipeline_encoded(pipeline, frames.float() / 255)
            (found,) = encoder.encode_videos(frames)
        assert_close(
            "vae_latent of a clip", found["vae_latent"], wanted, rtol=10 * self.tolerance,
            advice="the model's own pipeline encodes the same RGB frames so: are channels in order (RGB, not BGR), pixels "
            "scaled to what its autoencoder takes, mostly [-1, 1], axes in order, and latents neither sampled nor scaled?",
        )  # fmt: skip

    @needs("pipeline")
    @needs("encoder")
    @needs("sampler")
    def test_decoded_videos_are_those_of_the_model_s_own_pipeline(
        self, prepared: PreparedFamily, tmp_path: Path
    ) -> None:
        if self._encoder(prepared.run).describe().get("latents_normalised") != "false":
            pytest.skip("its encoder stores latents that are normalised already, which the pipeline does not decode")
        training = self._training(prepared)
        stored = prepared.one_row(training.components)["vae_latent"].float()
        asked: dict[str, Any] = {"sampler_kind": "ode", "sampling_timesteps": (training.total,)}
        video = self._sample(prepared, training, tmp_path, replace=answering(training), **asked).video
        with torch.no_grad():
            wanted = self.pipeline_decoded(self.own_pipeline(prepared.run["roles"]["student"]["path"]), stored)
        assert_close(
            "frames of a stored latent", video.frames.float(), wanted.float() * 255, scale=255.0, rtol=0.01,
            advice="the model's own pipeline decodes it so: are latents taken back to what the autoencoder decodes, pixels "
            "scaled from what it gives, mostly [-1, 1], and channels in order (RGB, not BGR)?",
        )  # fmt: skip

    def _compare(self, prepared: PreparedFamily, scale: float) -> None:
        guided = isinstance(prepared.section(), GuidedPipelineConfig)
        if guided:
            prepared = prepared.with_options(negative_prompt=_NEGATIVE)
        training = self._training(prepared)
        pipeline = self.own_pipeline(prepared.run["roles"]["student"]["path"])
        prompt = training.prompt
        assert prompt.height is not None
        assert prompt.width is not None
        assert prompt.num_frames is not None
        negative = _NEGATIVE if guided and scale != 1 else None
        given = {"image_path": prompt.image_path, "last_image_path": prompt.last_image_path}
        images = {name: path for name, path in given.items() if path is not None}
        size = {"height": prompt.height, "width": prompt.width, "num_frames": prompt.num_frames}
        asked = PipelineCall(prompt.caption, negative, scale, **size, images=images)
        with torch.no_grad(), self._recorded(pipeline.scheduler) as steps:
            self.run_pipeline(pipeline, asked)
        assert steps, "the pipeline ran without a call of its scheduler's `step`"
        for step in steps:
            self._assert_same(training, step, scale)

    def _assert_same(self, training: Training, step: SchedulerStep, scale: float) -> None:
        given, output = (self.pipeline_latents(parts).float() for parts in (step.sample, step.model_output))
        noisy, velocity = self.pipeline_axis(given, output, step.level)
        t = step.level * training.total
        shape = list(training.batch.latents.shape)
        assert list(noisy.shape) == shape, (
            f"the pipeline's latents have shape {list(noisy.shape)}, the adapter's {shape} for the same video: say in "
            "pipeline_latents how they are packed, or is the layout another one than the network's?"
        )
        free = free_latents(training.batch)
        wanted = self.pipeline_sign * velocity * free
        adapter: Any = training.components.adapter

        def predict(level: float) -> Tensor:
            at = torch.tensor([level])
            with torch.no_grad():
                if scale == 1:
                    out = adapter.predict_noise(training.handle, noisy, at, training.batch, conditional=True)
                else:
                    out = adapter.predict_noise_guided(training.handle, noisy, at, training.batch, guidance_scale=scale)
            masked: Tensor = out.float() * free
            return masked

        found = predict(t)
        close = functools.partial(torch.allclose, atol=100 * self.tolerance * float(wanted.abs().max()))
        if close(found, -wanted):
            cause = (
                "it is the negative of it: a sign is wrong throughout, or the pipeline hands its scheduler the negative "
                "velocity; then say pipeline_sign = -1 in the suite"
            )
        elif close(found, wanted):
            cause = (
                "it is nearly that: are captions cleaned as the pipeline cleans them before they are tokenized (spaces, HTML "
                "entities), and numbers rounded as there?"
            )
        elif close(predict(training.total - t), wanted):
            cause = "it would be that at num_train_timesteps - t: the network's time runs the other way"
        else:
            cause = (
                "is the network told the time as the pipeline tells it (0 to 1, or 0 to 1000, and in which direction), are "
                "text, its padding and its mask those of the pipeline, and the latents' layout and scale? Of a pipeline that "
                "is not flow matching pipeline_axis must say what latents and prediction are on our noise axis"
            )
        assert_close(
            f"at noise level {step.level:.3g} and guidance {scale:g} what predict_noise gives, held to what the model's own "
            "pipeline hands to scheduler.step,",
            found, wanted, rtol=10 * self.tolerance, advice=cause,
        )  # fmt: skip

    @contextmanager
    def _recorded(self, scheduler: Any) -> Iterator[list[SchedulerStep]]:
        """Inside, the list grows with the scheduler's steps, and those of copies that the pipeline makes of it."""
        steps: list[SchedulerStep] = []
        counts: dict[int, int] = {}
        kind = type(scheduler)
        names = inspect.signature(kind.step)

        @functools.wraps(kind.step)
        def step(this: Any, *args: Any, **kwargs: Any) -> Any:
            given = names.bind(this, *args, **kwargs).arguments
            index = counts.get(id(this), 0)
            counts[id(this)] = index + 1
            level = self.pipeline_level(this, index)
            if index == len(steps):
                steps.append(SchedulerStep([], [], level))
            steps[index].model_output.append(given["model_output"].detach().clone())
            steps[index].sample.append(given["sample"].detach().clone())
            return kind.step(this, *args, **kwargs)

        scheduler.__class__ = type(kind.__name__, (kind,), {"step": step})
        try:
            yield steps
        finally:
            scheduler.__class__ = kind
