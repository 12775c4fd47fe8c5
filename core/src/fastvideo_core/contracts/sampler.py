"""What a family's `sampler` must be: a network from a folder or hub id that makes videos for the command `sample`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.contracts.validator import DistillValidator, ValidationPrompt, VideoSampler
from fastvideo_core.diffusion.rollout import SamplerKind


@dataclass(frozen=True)
class StudentSchedule:
    """What a few-step student was distilled for, at guidance 1.

    Args:
        timesteps: of its network calls, in (0, num_train_timesteps].
        sampler_kind: how x moves from one to the next.
    """

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
        """What samples the prompts and writes the videos.

        Raises:
            DataError: naming every prompt that it cannot sample.
        """
