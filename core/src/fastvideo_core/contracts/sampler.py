"""Sampling with the network of a folder or hub id: what a family's `sampler` gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.contracts.validator import DistillValidator, ValidationPrompt, VideoSampler
from fastvideo_core.diffusion.rollout import FewStepSchedule, SamplerKind
from fastvideo_core.errors import ConfigError, Problem


class FamilySampler(VideoSampler, Protocol):
    """A family's sampler, of any role, that knows the family's timestep shift."""

    def shift_and_clamp_timestep(self, t: Tensor) -> Tensor:
        """As the adapter's: unshifted t to shifted t."""
        ...


@dataclass(frozen=True)
class StudentSchedule:
    """What a few-step student was distilled for, at guidance 1.

    Args:
        timesteps: of its network calls, in (0, num_train_timesteps].
        sampler_kind: how x moves from one to the next.
    """

    timesteps: tuple[float, ...]
    sampler_kind: SamplerKind

    @classmethod
    def exported(cls, stored: Mapping[str, Any], *, where: str) -> StudentSchedule | None:
        """What an export left in its scheduler's configuration; None where that is no student's.

        Args:
            stored: `sampling_timesteps` and `sampler_kind`, beside what else the family keeps there.
            where: how an error names the file.

        Raises:
            ConfigError: it is damaged.
        """
        if "sampling_timesteps" not in stored:
            return None
        kind = stored.get("sampler_kind")
        try:
            if kind not in ("ode", "sde"):
                raise ValueError(f"its sampler_kind is {kind!r}")
            return cls(FewStepSchedule.from_denoising_steps(stored["sampling_timesteps"]).timesteps, kind)
        except (TypeError, ValueError) as error:
            fix = "export it again"
            raise ConfigError(Problem(f"the student's schedule cannot be read: {error}", where, fix=fix)) from error


class ModelSampler(FamilySampler, Protocol):
    """A network from a folder or hub id as a role, the sampler that uses it, and who writes what it makes."""

    @property
    def handle(self) -> RoleHandle:
        """The network as the role "student"; `sample` reads a checkpoint's weights into it."""
        ...

    @property
    def student(self) -> StudentSchedule | None:
        """What the folder's network was distilled for, where it says so; None for one of many steps."""
        ...

    def validator(self, prompts: Sequence[ValidationPrompt], *, seed: int) -> PromptValidator:
        """What samples the prompts and writes the videos.

        Raises:
            DataError: naming every prompt that it cannot sample.
        """
        ...


class PromptValidator(DistillValidator, Protocol):
    """A validator that says what it will sample."""

    @property
    def prompts(self) -> Sequence[ValidationPrompt]:
        """The prompts, with every size filled in."""
        ...
