"""The validator of families that have a `VideoSampler`: it samples, writes, and hands the files to the tracker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from fastvideo_core.contracts.rng import stream_seed
from fastvideo_core.contracts.tracker import LoggedVideo, Tracker
from fastvideo_core.contracts.validator import (
    SampledVideo,
    SamplingWatch,
    ValidationPrompt,
    ValidationRequest,
    VideoSampler,
)
from fastvideo_core.distributed.context import device, is_main_process
from fastvideo_core.errors import DataError, FastVideoError, Problem
from fastvideo_data.schema import published
from fastvideo_data.video_files import animated_gif, write_contact_sheet, write_video


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
        self.watch = SamplingWatch()
        self._sampler = sampler
        self.prompts = fit_prompts(sampler, prompts)
        self._seed = seed
        self._tracker = Tracker()

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
        gif = partial(animated_gif, mp4)
        self._tracker.log_video(LoggedVideo(f"validation/{stem}", mp4, step, prompt.caption, png, gif))


def _write_error(folder: Path, error: OSError) -> VideoWriteError:
    where = str(error.filename or folder)
    found = f"a sampled video could not be written: {error.strerror or error}"
    return VideoWriteError(Problem(found, where, fix="free space or make the folder writable"))


@runtime_checkable
class FitsPrompts(Protocol):
    """A sampler that knows, before any work, what it would make of a prompt."""

    def fit_prompt(self, prompt: ValidationPrompt) -> ValidationPrompt:
        """The prompt with every size filled in: its own, else the sampler's default.

        Raises:
            DataError: the family cannot sample it.
        """
        ...


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


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Inside, the module is in eval mode; afterwards in the mode that it was in."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
