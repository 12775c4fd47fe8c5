"""Sampling, in a training and for the command `sample`: the method says what, the family knows how."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fastvideo_core.config.base import GuidedPipelineConfig, PluginConfig
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.contracts.tracker import Tracker
from fastvideo_core.diffusion.rollout import SamplerKind
from fastvideo_core.errors import Problem


@dataclass(frozen=True)
class ValidationPrompt:
    """One prompt to sample; None leaves a value to the run's configuration.

    Sizes are pixels and frames, > 0; `image_path` and `last_image_path` are the first and the last frame for image-to-video,
    existing files; `seed` is that of the sample's noise, >= 0. The negative prompt replaces the run's; `default` is the published
    one, and it may be empty. `where` is how an error names the prompt: file, entry and caption. `conditions` are images at other
    frames: (file, frame counted from 0, strength in (0, 1]).
    """

    caption: str
    height: int | None = None
    width: int | None = None
    num_frames: int | None = None
    num_inference_steps: int | None = None
    image_path: Path | None = None
    seed: int | None = None
    negative_prompt: str | None = None
    last_image_path: Path | None = None
    conditions: tuple[tuple[Path, int, float], ...] = ()
    where: str = field(default="", compare=False)


def is_text(value: object) -> bool:
    """Whether a tokenizer takes it: a text that is not blank, and holds no half of a character (`\\ud83d` alone in JSON)."""
    return isinstance(value, str) and bool(value.strip()) and not re.search("[\ud800-\udfff]", value)


def unread_negative_prompts(prompts: Sequence[ValidationPrompt], config: PluginConfig, family: str) -> list[Problem]:
    """Prompts with a negative prompt of their own, where the family, of pipeline_config `config`, reads none."""
    found, reads = f"the family '{family}' takes no negative prompt", isinstance(config, GuidedPipelineConfig)
    own = [one.where for one in prompts if one.negative_prompt is not None and not reads]
    return [Problem(found, where or "--negative-prompt", fix="leave it out") for where in own]


@dataclass(frozen=True)
class ValidationRequest:
    """What a method wants to see: videos of one role, by the family's own sampler in many steps, or in few.

    Many-step sampling has `sampling_steps`, which a prompt's own num_inference_steps replaces unless they are `fixed_steps`.
    Few-step sampling has a kind and `sampling_timesteps`, exactly these, in (0, num_train_timesteps]. `guidance_scale` is the w
    of u + w (c - u); 1 is none. `guidance_scale_2` is that of the network for low noise, where a role has one; None leaves it to
    the family. `label` tells requests of one validation apart in file names and in the tracker.
    """

    sample_handle: RoleHandle
    output_dir: Path
    sampler_kind: SamplerKind | None = None
    sampling_steps: int | None = None
    fixed_steps: bool = False
    sampling_timesteps: tuple[float, ...] | None = None
    guidance_scale: float = 1.0
    guidance_scale_2: float | None = None
    label: str = ""

    def for_prompt(self, prompt: ValidationPrompt) -> ValidationRequest:
        """The request with the number of steps that this prompt is sampled in; few-step levels always hold."""
        if self.sampling_steps is None or self.fixed_steps or prompt.num_inference_steps is None:
            return self
        return replace(self, sampling_steps=prompt.num_inference_steps)


@dataclass(frozen=True)
class SampledVideo:
    """Frames uint8 [T, H, W, 3] at `fps`, with audio float32 [channels, samples] in [-1, 1] when the family makes any.

    `latents` are the normalised ones [C, T, H, W], float32, that were decoded, where the sampler gives them.
    """

    frames: Tensor
    fps: float
    audio: Tensor | None = None
    sample_rate: int | None = None
    latents: Tensor | None = None


class VideoSampler(Protocol):
    """A family's way from a prompt to a video with any one of its roles."""

    def sample(self, request: ValidationRequest, prompt: ValidationPrompt, generator: torch.Generator) -> SampledVideo:
        """One video. Every draw comes from `generator` (on the CPU), so that equal seeds give equal videos.

        Calls the network as `request.sample_handle.modules` has it, and no part of it alone: before each call a training
        may leave the sampling, and by the call's `timestep` it counts the steps.
        """


class DistillValidator(Protocol):
    """Samples and reports; called by the method's `log_validation`."""

    def set_tracker(self, tracker: Tracker) -> None: ...

    def log_validation(self, step: int, request: ValidationRequest) -> None: ...


class SamplingWatch:
    """Looks after a validation: told of every prompt, it may keep a failure, or end the sampling. This one lets all pass."""

    def prompt(
        self, request: ValidationRequest, prompt: ValidationPrompt, number: int, count: int
    ) -> AbstractContextManager[None]:
        """Around all that is done for a prompt, the `number`-th of `count`, by every process."""
        return nullcontext()

    def raise_failures(self) -> None:
        """After the last prompt: raises what it kept."""


@runtime_checkable
class WatchedValidator(Protocol):
    """A validator that a training can look after while it samples."""

    watch: SamplingWatch


@dataclass(frozen=True)
class StudentSchedule:
    """What a few-step student was distilled for, at guidance 1: timesteps of its network calls in (0, num_train_timesteps]."""

    timesteps: tuple[float, ...]
    sampler_kind: SamplerKind


class PromptValidator(DistillValidator, Protocol):
    """A validator that says what it will sample."""

    @property
    def prompts(self) -> Sequence[ValidationPrompt]:
        """The prompts, with every size filled in."""


class ModelSampler(VideoSampler, Protocol):
    """A network from a folder or hub id as a role, the sampler that uses it, and who writes what it makes."""

    @property
    def handle(self) -> RoleHandle:
        """The network as the role "student"; `sample` reads a checkpoint's weights into it."""

    @property
    def student(self) -> StudentSchedule | None:
        """What the folder's network was distilled for, where it says so; None for one of many steps."""

    def shift_and_clamp_timestep(self, t: Tensor) -> Tensor:
        """As the adapter's: unshifted t to shifted t."""

    def validator(self, prompts: Sequence[ValidationPrompt], *, seed: int) -> PromptValidator:
        """What samples the prompts and writes the videos; raises a DataError that names every prompt that it cannot sample."""
