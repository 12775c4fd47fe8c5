"""Few-step generation: one schedule and one transition, shared by training, validation and `sample`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fastvideo_core.diffusion.denoising_steps import NOISE_AXIS, denoising_steps_problem
from fastvideo_core.diffusion.flow import move_along

SamplerKind = Literal["ode", "sde"]
"""Whether few-step sampling keeps the noise or draws it anew; see `transition`."""


@dataclass(frozen=True)
class FewStepSchedule:
    """The noise levels at which a few-step student calls its network.

    `timesteps` fall, each in (0, num_train_timesteps], the noise axis; one network call per entry, and 0 (clean) after the last.
    """

    timesteps: tuple[float, ...]
    num_train_timesteps: int = NOISE_AXIS

    @classmethod
    def from_denoising_steps(
        cls, steps: Sequence[float], *, warp: Callable[[Tensor], Tensor] | None = None
    ) -> FewStepSchedule:
        """From the notation of `dmd_denoising_steps`, for example [999, 750, 500, 250, 0].

        The last index of the noise axis (999 of 1000) means pure noise and is read as 1000: there is no data left in
        the input of the first call, so that its sigma is 1. A closing 0 means "clean" and costs no network call. `warp`, the
        family's `shift_and_clamp_timestep`, shifts the levels [N] (float64). Raises ValueError, naming what is wrong.
        """
        if problem := denoising_steps_problem(steps):
            raise ValueError(problem)
        calls = [float(NOISE_AXIS if step == NOISE_AXIS - 1 else step) for step in steps if step != 0]
        if warp is not None:
            calls = warp(torch.tensor(calls, dtype=torch.float64)).tolist()
        return cls(tuple(calls))

    def __len__(self) -> int:
        return len(self.timesteps)

    def sigma(self, index: int) -> float:
        """The noise level before call `index`; 0 behind the last call."""
        return self.timesteps[index] / self.num_train_timesteps if index < len(self) else 0.0

    def timestep_tensor(self, index: int, batch_size: int, device: torch.device) -> Tensor:
        """The timestep of call `index`, [B] float32."""
        return torch.full((batch_size,), self.timesteps[index], dtype=torch.float32, device=device)


def transition(
    noisy: Tensor,
    x0: Tensor,
    sigma: float | Tensor,
    next_sigma: float,
    *,
    kind: SamplerKind,
    generator: torch.Generator | None = None,
) -> Tensor:
    """x at the next noise level, from x_t [B, ...] at sigma (a number or [B]) and the network's x0 [B, ...]; float32 at least.

    `ode` keeps the noise that x_t and x0 imply (`move_along`); `sde` draws fresh noise: (1 - sigma') x0 + sigma' e (as in
    consistency and DMD2 sampling, Yin et al. 2024, section 4.4).
    """
    if next_sigma == 0.0:
        return x0
    if kind == "ode":
        return move_along(noisy, x0, sigma, next_sigma)
    noise = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
    return (1 - next_sigma) * x0 + next_sigma * noise


def roll_to(
    predict_x0: Callable[[Tensor, Tensor], Tensor],
    noise: Tensor,
    schedule: FewStepSchedule,
    *,
    exit_index: int,
    kind: SamplerKind,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The student's input at call `exit_index`, reached from pure noise [B, ...] with exactly `exit_index` calls.

    `predict_x0`, (x_t, t [B]) -> x0, is called without a graph; `generator` is for the fresh noise of `sde`.
    """
    x = noise
    with torch.no_grad():
        for index in range(exit_index):
            t = schedule.timestep_tensor(index, x.shape[0], x.device)
            x0 = predict_x0(x, t)
            x = transition(x, x0, schedule.sigma(index), schedule.sigma(index + 1), kind=kind, generator=generator)
    return x


def rollout(
    predict_x0: Callable[[Tensor, Tensor], Tensor],
    noise: Tensor,
    schedule: FewStepSchedule,
    *,
    kind: SamplerKind,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A finished sample x0 [B, ...] from pure noise, one network call per step of the schedule, without a graph."""
    last = len(schedule) - 1
    x = roll_to(predict_x0, noise, schedule, exit_index=last, kind=kind, generator=generator)
    with torch.no_grad():
        return predict_x0(x, schedule.timestep_tensor(last, x.shape[0], x.device))
