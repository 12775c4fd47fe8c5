"""The primitives that every flow-matching family shares; a family adds its batch and its network call."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastvideo_core.contracts.adapter import AttentionKind, DistillAdapter, PredictNoise
from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.diffusion import flow


class FlowMatchingAdapter(DistillAdapter, PredictNoise):
    """An adapter whose networks regress the velocity v = noise - x0 and are conditioned on t = num_train_timesteps * sigma.

    A family defines `prepare_batch` and `predict_noise`, which gives the velocity [B, ...]; the other primitives are as
    contracts/adapter.py says. `flow_shift` (above 0, 1 is none) is the one timestep shift of training, sampling and export.
    """

    supports_tangent: bool = False
    """Whether forward-mode derivatives go through `predict_noise`: true of plain torch with torch's own attention."""

    def __init__(self, flow_shift: float, num_train_timesteps: int = 1000) -> None:
        self.flow_shift = flow_shift
        self.num_train_timesteps = num_train_timesteps

    def shift_and_clamp_timestep(self, t: Tensor) -> Tensor:
        u = (t / self.num_train_timesteps).clamp(0, 1)
        return flow.shift_sigma(u, self.flow_shift) * self.num_train_timesteps

    def sigma(self, t: Tensor) -> Tensor:
        """The noise level of shifted t, computed, never looked up; float32 at least."""
        return t.to(torch.promote_types(t.dtype, torch.float32)) / self.num_train_timesteps

    def add_noise(self, clean_latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return flow.add_noise(clean_latents, noise, self.sigma(t))

    def prediction_target(self, clean_latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return flow.velocity(clean_latents, noise)

    def predict_x0(
        self,
        handle: RoleHandle,
        noisy_latents: Tensor,
        t: Tensor,
        batch: TrainingBatch,
        *,
        conditional: bool,
        attn_kind: AttentionKind = "dense",
    ) -> Tensor:
        v = self.predict_noise(handle, noisy_latents, t, batch, conditional=conditional, attn_kind=attn_kind)
        return flow.x0_from_velocity(noisy_latents, v, self.sigma(t))

    def predict_x0_guided(
        self, handle: RoleHandle, noisy_latents: Tensor, t: Tensor, batch: TrainingBatch, *, guidance_scale: float
    ) -> Tensor:
        return _guided(self.predict_x0, handle, noisy_latents, t, batch, guidance_scale)

    def predict_noise_guided(
        self, handle: RoleHandle, noisy_latents: Tensor, t: Tensor, batch: TrainingBatch, *, guidance_scale: float
    ) -> Tensor:
        return _guided(self.predict_noise, handle, noisy_latents, t, batch, guidance_scale)

    def backward(self, loss: Tensor, ctx: Any, grad_accum_rounds: int = 1) -> None:
        (loss / grad_accum_rounds).backward()  # type: ignore[no-untyped-call]


def _guided(
    predict: Callable[..., Tensor], handle: RoleHandle, noisy: Tensor, t: Tensor, batch: TrainingBatch, scale: float
) -> Tensor:
    if scale == 1:
        return predict(handle, noisy, t, batch, conditional=True)
    noisy_twice, t_twice = torch.cat([noisy] * 2), torch.cat([t] * 2)
    both = predict(handle, noisy_twice, t_twice, batch.with_both_conditionings(), conditional=True)
    conditional, unconditional = both.chunk(2)
    return flow.guided(conditional, unconditional, scale)
