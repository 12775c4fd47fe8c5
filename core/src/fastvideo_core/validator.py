"""Validation: the method says what to sample, the family knows how, core writes and shows the videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from fastvideo_core.data.media import write_contact_sheet, write_video
from fastvideo_core.data.validation import ValidationPrompt
from fastvideo_core.diffusion.rollout import SamplerKind
from fastvideo_core.distributed.context import device, is_main_process
from fastvideo_core.rng import stream_seed
from fastvideo_core.roles import RoleHandle
from fastvideo_core.tracker import NullTracker, Tracker


@dataclass(frozen=True)
class ValidationRequest:
    """What a method wants to see.

    Args:
        sample_handle: the role that makes the videos.
        sampler_kind: `ode` or `sde` for few-step sampling on `sampling_timesteps`; None for the family's own sampler.
        sampling_steps: number of steps of many-step sampling; None with `sampling_timesteps`.
        sampling_timesteps: the exact levels of few-step sampling, in (0, num_train_timesteps]; None for many-step.
        guidance_scale: w of u + w (c - u); 1 is no guidance.
        output_dir: where the videos go.
        label: tells several requests of one validation apart in file names and in the tracker.
    """

    sample_handle: RoleHandle
    output_dir: Path
    sampler_kind: SamplerKind | None = None
    sampling_steps: int | None = None
    sampling_timesteps: tuple[float, ...] | None = None
    guidance_scale: float = 1.0
    label: str = ""


@dataclass(frozen=True)
class SampledVideo:
    """Frames uint8 [T, H, W, 3] at `fps`, with audio float32 [channels, samples] in [-1, 1] when the family makes any."""

    frames: Tensor
    fps: float
    audio: Tensor | None = None
    sample_rate: int | None = None


class VideoSampler(Protocol):
    """A family's way from a prompt to a video with any one of its roles."""

    def sample(self, request: ValidationRequest, prompt: ValidationPrompt, generator: torch.Generator) -> SampledVideo:
        """One video. Every draw comes from `generator` (on the CPU), so that equal seeds give equal videos."""
        ...


class DistillValidator(Protocol):
    """Samples and reports; called by the method's `log_validation`."""

    def set_tracker(self, tracker: Tracker) -> None: ...

    def log_validation(self, step: int, request: ValidationRequest) -> None: ...


class SamplingValidator:
    """Samples every validation prompt through a family's sampler, writes mp4 + PNG, hands both to the tracker.

    The training's random state is never touched: each prompt has a generator of its own, seeded from (seed, prompt index)
    or from the prompt's own seed, so that a prompt's videos are comparable over the steps of a run.

    Args:
        sampler: the family's sampler.
        prompts: what to sample.
        seed: the run's seed.
    """

    def __init__(self, sampler: VideoSampler, prompts: Sequence[ValidationPrompt], *, seed: int) -> None:
        self._sampler = sampler
        self._prompts = tuple(prompts)
        self._seed = seed
        self._tracker: Tracker = NullTracker()

    def set_tracker(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def log_validation(self, step: int, request: ValidationRequest) -> None:
        """Samples all prompts with `request`; every process runs along (sharded networks need all), the main one writes."""
        module_modes = [(module, module.training) for module in request.sample_handle.modules.values()]
        devices = [device()] if device().type == "cuda" else []
        try:
            for module, _ in module_modes:
                module.eval()
            with torch.no_grad(), torch.random.fork_rng(devices=devices):
                for index, prompt in enumerate(self._prompts):
                    seed = prompt.seed if prompt.seed is not None else stream_seed(self._seed, f"validation/{index}")
                    video = self._sampler.sample(request, prompt, torch.Generator().manual_seed(seed))
                    if is_main_process():
                        self._write(step, request, index, prompt, video)
        finally:
            for module, training in module_modes:
                module.train(training)

    def _write(
        self, step: int, request: ValidationRequest, index: int, prompt: ValidationPrompt, video: SampledVideo
    ) -> None:
        request.output_dir.mkdir(parents=True, exist_ok=True)
        stem = f"{request.label}-{index:02d}" if request.label else f"{index:02d}"
        mp4, png = request.output_dir / f"{stem}.mp4", request.output_dir / f"{stem}.png"
        frames = video.frames.cpu().numpy()
        audio = None if video.audio is None else video.audio.cpu().numpy()
        write_video(mp4, frames, video.fps, audio=audio, sample_rate=video.sample_rate)
        write_contact_sheet(png, frames)
        (request.output_dir / f"{stem}.txt").write_text(prompt.caption + "\n", encoding="utf-8")
        self._tracker.log_video(f"validation/{stem}", mp4, step, caption=prompt.caption, contact_sheet=png)
