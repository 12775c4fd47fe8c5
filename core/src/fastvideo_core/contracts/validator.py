"""Validation: the method says what to sample, the family knows how, core writes and shows the videos."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fastvideo_core.contracts.rng import stream_seed
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.contracts.tracker import NullTracker, Tracker
from fastvideo_core.diffusion.rollout import SamplerKind
from fastvideo_core.distributed.context import device, is_main_process
from fastvideo_core.errors import DataError, FastVideoError, Problem
from fastvideo_data.schema import published
from fastvideo_data.validation_prompts import ValidationPrompt
from fastvideo_data.video_files import write_contact_sheet, write_video
from fastvideo_diffusers.autocast import evaluating


@dataclass(frozen=True)
class ValidationRequest:
    """What a method wants to see.

    Args:
        sample_handle: the role that makes the videos.
        sampler_kind: `ode` or `sde` for few-step sampling on `sampling_timesteps`; None for the family's own sampler.
        sampling_steps: number of steps of many-step sampling; None with `sampling_timesteps`.
        fixed_steps: whether sampling_steps holds for every prompt; else a prompt's own num_inference_steps replaces it.
        sampling_timesteps: the exact levels of few-step sampling, in (0, num_train_timesteps]; None for many-step.
        guidance_scale: w of u + w (c - u); 1 is no guidance.
        output_dir: where the videos go.
        label: tells several requests of one validation apart in file names and in the tracker.
    """

    sample_handle: RoleHandle
    output_dir: Path
    sampler_kind: SamplerKind | None = None
    sampling_steps: int | None = None
    fixed_steps: bool = False
    sampling_timesteps: tuple[float, ...] | None = None
    guidance_scale: float = 1.0
    label: str = ""

    def for_prompt(self, prompt: ValidationPrompt) -> ValidationRequest:
        """The request with the number of steps that this prompt is sampled in; few-step levels always hold."""
        if self.sampling_steps is None or self.fixed_steps or prompt.num_inference_steps is None:
            return self
        return replace(self, sampling_steps=prompt.num_inference_steps)


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
        """One video. Every draw comes from `generator` (on the CPU), so that equal seeds give equal videos.

        Calls the network as `request.sample_handle.modules` has it, and no part of it alone: before each call a training
        may leave the sampling, and by the call's `timestep` it counts the steps.
        """
        ...


@runtime_checkable
class FitsPrompts(Protocol):
    """A sampler that knows, before any work, what it would make of a prompt."""

    def fit_prompt(self, prompt: ValidationPrompt) -> ValidationPrompt:
        """The prompt with every size filled in: its own, else the sampler's default.

        Raises:
            DataError: the family cannot sample it.
        """
        ...


class DistillValidator(Protocol):
    """Samples and reports; called by the method's `log_validation`."""

    def set_tracker(self, tracker: Tracker) -> None: ...

    def log_validation(self, step: int, request: ValidationRequest) -> None: ...


class SamplingWatch(Protocol):
    """Whoever looks after a validation: told of every prompt, it may keep a failure to itself, or end the sampling."""

    def prompt(
        self, request: ValidationRequest, prompt: ValidationPrompt, number: int, count: int
    ) -> AbstractContextManager[None]:
        """Around all that is done for a prompt, the `number`-th of `count`, by every process."""
        ...

    def raise_failures(self) -> None:
        """After the last prompt: raises what it kept."""
        ...


class Unwatched:
    """Nobody looks: the first error ends the sampling."""

    def prompt(
        self, request: ValidationRequest, prompt: ValidationPrompt, number: int, count: int
    ) -> AbstractContextManager[None]:
        return nullcontext()

    def raise_failures(self) -> None:
        return


class VideoWriteError(FastVideoError):
    """A sampled video could not be written; there is room or permission missing, and nothing wrong with the run."""


class SamplingValidator:
    """Samples every validation prompt through a family's sampler, writes mp4 + PNG, hands both to the tracker.

    The training's random state is never touched: each prompt has a generator of its own, seeded from (seed, prompt index)
    or from the prompt's own seed, so that a prompt's videos are comparable over the steps of a run.

    Args:
        sampler: the family's sampler.
        prompts: what to sample.
        seed: the run's seed.

    Attributes:
        watch: set by the training while it validates.

    Raises:
        DataError: the sampler fits prompts (`FitsPrompts`) and cannot sample some of these; all are named at once.
    """

    def __init__(self, sampler: VideoSampler, prompts: Sequence[ValidationPrompt], *, seed: int) -> None:
        self.watch: SamplingWatch = Unwatched()
        self._sampler = sampler
        self.prompts = fit_prompts(sampler, prompts)
        self._seed = seed
        self._tracker: Tracker = NullTracker()

    def set_tracker(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def log_validation(self, step: int, request: ValidationRequest) -> None:
        """Samples all prompts with `request`; every process runs along (sharded networks need all), the main one writes.

        Raises:
            VideoWriteError: a video or sheet could not be written.
        """
        devices = [device()] if device().type == "cuda" else []
        with ExitStack() as modes, torch.no_grad(), torch.random.fork_rng(devices=devices):
            for module in request.sample_handle.modules.values():
                modes.enter_context(evaluating(module))
            for index, prompt in enumerate(self.prompts):
                asked = request.for_prompt(prompt)
                seed = prompt.seed if prompt.seed is not None else stream_seed(self._seed, f"validation/{index}")
                with self.watch.prompt(asked, prompt, index + 1, len(self.prompts)):
                    video = self._sampler.sample(asked, prompt, torch.Generator().manual_seed(seed))
                    if is_main_process():
                        self._write(step, request, index, prompt, video)
        self.watch.raise_failures()

    def _write(
        self, step: int, request: ValidationRequest, index: int, prompt: ValidationPrompt, video: SampledVideo
    ) -> None:
        stem = f"{request.label}-{index:02d}" if request.label else f"{index:02d}"
        mp4, png = request.output_dir / f"{stem}.mp4", request.output_dir / f"{stem}.png"
        frames = video.frames.cpu().numpy()
        audio = None if video.audio is None else video.audio.cpu().numpy()
        try:
            request.output_dir.mkdir(parents=True, exist_ok=True)
            write_video(mp4, frames, video.fps, audio=audio, sample_rate=video.sample_rate)
            write_contact_sheet(png, frames)
            with published(request.output_dir / f"{stem}.txt") as aside:
                aside.write_text(prompt.caption + "\n", encoding="utf-8")
        except OSError as error:
            raise _write_error(request.output_dir, error) from error
        self._tracker.log_video(f"validation/{stem}", mp4, step, caption=prompt.caption, contact_sheet=png)


def _write_error(folder: Path, error: OSError) -> VideoWriteError:
    where = str(error.filename or folder)
    found = f"a sampled video could not be written: {error.strerror or error}"
    return VideoWriteError(Problem(found, where, fix="free space or make the folder writable"))


def fit_prompts(sampler: object, prompts: Sequence[ValidationPrompt]) -> tuple[ValidationPrompt, ...]:
    """The prompts as the sampler would sample them; unchanged when it does not say.

    Raises:
        DataError: naming every prompt that it cannot sample.
    """
    if not isinstance(sampler, FitsPrompts):
        return tuple(prompts)
    fitted: list[ValidationPrompt] = []
    problems: list[Problem] = []
    for prompt in prompts:
        try:
            fitted.append(sampler.fit_prompt(prompt))
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    return tuple(fitted)
