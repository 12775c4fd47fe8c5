"""Noise for batches, and where on the time axis it is mixed in."""

from __future__ import annotations

import torch
from torch import Tensor

from fastvideo_core.contracts.batch import TrainingBatch


def noisy_at(batch: TrainingBatch) -> tuple[Tensor, Tensor]:
    """Noise of the latents' shape and a timestep for each of up to two samples."""
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(1))
    return noise, torch.tensor([900.0, 250.0])[: batch.batch_size]
