"""The batch that an adapter prepares and a method trains on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Trajectory:
    """The states that a teacher's sampler passed through on its way from noise to a clip, latents normalised as the batch's
    own, [B, S, ...], and the timestep of each, [B, S], falling, in [0, num_train_timesteps].

    The timesteps stay on the CPU. The last state is the clean end, whatever its timestep: FastVideo stores that of the last step.
    """

    states: Tensor
    timesteps: Tensor


@dataclass(frozen=True)
class TrainingBatch:
    """One micro-batch, ready for the network.

    Args:
        latents: [B, ...] clean latents x0 (zeros for data-free training); the layout behind dim 0 is the adapter's.
        conditioning: what guidance swaps and caption dropout drops (the text), every tensor [B, ...].
        negative_conditioning: same keys and shapes; what `conditional=False` uses.
        context: what the network is conditioned on besides, every tensor [B, ...] (frame rates, an image's latents and mask);
            the same for both halves of guidance, never dropped.
        loss_weight: broadcastable to latents, or None for 1 everywhere; 0 on conditioning frames and padding.
        extras: whatever the family needs besides that is no tensor of samples (a layout, captions).
        dropped_conditioning: same keys and shapes; the empty text, for dropped captions. None is the negative conditioning.
    """

    latents: Tensor
    conditioning: dict[str, Tensor]
    negative_conditioning: dict[str, Tensor] | None = None
    context: dict[str, Tensor] = field(default_factory=dict)
    loss_weight: Tensor | None = None
    trajectory: Trajectory | None = None
    extras: dict[str, Any] = field(default_factory=dict)
    dropped_conditioning: dict[str, Tensor] | None = None

    @property
    def batch_size(self) -> int:
        return self.latents.shape[0]

    def with_conditioning_dropped(self, dropped: Tensor) -> TrainingBatch:
        """The same batch without its captions where `dropped` [B] (bool) is true (Ho & Salimans 2022, section 3.2).

        Raises ValueError without dropped and negative conditioning.
        """
        without = self.negative_conditioning if self.dropped_conditioning is None else self.dropped_conditioning
        if without is None:
            raise ValueError("caption dropout needs a batch with dropped or negative conditioning")
        mixed = {}
        for key, value in self.conditioning.items():
            mask = dropped.to(value.device).reshape(-1, *[1] * (value.ndim - 1))
            mixed[key] = torch.where(mask, without[key], value)
        return replace(self, conditioning=mixed)

    def with_both_conditionings(self) -> TrainingBatch:
        """A batch [2B, ...]: half with the conditioning, half with the negative one (else ValueError), both with the context."""
        if self.negative_conditioning is None:
            raise ValueError("guidance needs a batch with negative conditioning")
        negative = self.negative_conditioning
        return replace(
            self,
            latents=torch.cat([self.latents] * 2),
            conditioning={key: torch.cat([value, negative[key]]) for key, value in self.conditioning.items()},
            negative_conditioning=None,
            context={key: torch.cat([value] * 2) for key, value in self.context.items()},
            dropped_conditioning=None,
            loss_weight=None,
            trajectory=None,
        )
