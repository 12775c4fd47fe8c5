"""The example of docs/authors/write-a-family.md: a model that predicts v on a variance-preserving schedule, on our noise axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastvideo_core import FlowMatchingAdapter, RoleHandle, TrainingBatch
from fastvideo_core.diffusion.flow import expand_to


class VPredictionAdapter(FlowMatchingAdapter):
    """Networks that regress v = alpha noise - s x0 at z = alpha x0 + s noise, alpha^2 + s^2 = 1 (Salimans & Ho 2022)."""

    def __init__(self, alphas_cumprod: Tensor) -> None:
        super().__init__(flow_shift=1.0)
        alpha, s = alphas_cumprod.double().sqrt(), (1 - alphas_cumprod.double()).sqrt()
        self._sigmas = s / (alpha + s)  # of each time that the network was trained at, rising

    def shift_and_clamp_timestep(self, t: Tensor) -> Tensor:
        """Held inside of what the network knows: its noisiest level still has some of x0 in it."""
        low, high = (self._sigmas[[0, -1]] * self.num_train_timesteps).tolist()
        return super().shift_and_clamp_timestep(t).clamp(low, high)

    def network_time(self, sigma: Tensor) -> Tensor:
        """The network's own time of each level [B], between two of its times as well."""
        table = self._sigmas.to(sigma.device)
        after = torch.searchsorted(table, sigma).clamp(1, len(table) - 1)
        low, high = table[after - 1], table[after]
        return after - 1 + ((sigma - low) / (high - low)).clamp(0, 1)

    def predict_noise(
        self,
        handle: RoleHandle,
        noisy_latents: Tensor,
        t: Tensor,
        batch: TrainingBatch,
        *,
        conditional: bool,
        attn_kind: Any = "dense",
    ) -> Tensor:
        sigma = self.sigma(t).double().reshape(-1).expand(len(noisy_latents))
        length = ((1 - sigma) ** 2 + sigma**2).sqrt()  # z = x_t / length has the network's own alpha and s
        alpha, s = ((expand_to(level / length, noisy_latents)).float() for level in (1 - sigma, sigma))
        z = noisy_latents / expand_to(length, noisy_latents).float()
        v = self.call(handle, z, self.network_time(sigma), batch, conditional)
        x0, noise = alpha * z - s * v, s * z + alpha * v
        return noise - x0

    def call(self, handle: RoleHandle, z: Tensor, time: Tensor, batch: TrainingBatch, conditional: bool) -> Tensor:
        """Your network's v; `time` [B] is its own."""
        conditioning = batch.conditioning if conditional else batch.negative_conditioning
        out: Tensor = handle.modules["transformer"](z, time, conditioning)
        return out


class VPredictionPipeline:
    """What the conformance suite of a family of such a diffusers pipeline overrides, here one with frames before channels."""

    def pipeline_latents(self, parts: Sequence[Tensor]) -> Tensor:
        return parts[0].transpose(1, 2)

    def pipeline_level(self, scheduler: Any, index: int) -> float:
        squared = scheduler.alphas_cumprod[int(scheduler.timesteps[index])].double()
        return float((1 - squared).sqrt() / (squared.sqrt() + (1 - squared).sqrt()))

    def pipeline_axis(self, latents: Tensor, prediction: Tensor, level: float) -> tuple[Tensor, Tensor]:
        length = ((1 - level) ** 2 + level**2) ** 0.5
        alpha, s = (1 - level) / length, level / length
        return latents * length, (s * latents + alpha * prediction) - (alpha * latents - s * prediction)
