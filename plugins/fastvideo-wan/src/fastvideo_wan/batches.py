"""What Wan takes from the rows of a data set, and the sizes of latents where it takes none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fastvideo_core.config.training import TrainingArgs
from fastvideo_diffusers import stored_tensors as stored
from fastvideo_wan.folder import WanFolder


def stored_latents(raw_batch: Mapping[str, Any], folder: WanFolder, training: TrainingArgs) -> Tensor:
    """`vae_latent` [B, C, T, H, W] as it is stored, at most `num_latent_t` frames of it.

    Raises:
        DataError: there is none, or one that this pipeline cannot take.
    """
    _, height, width = folder.patch_size
    return stored.stored_latents(
        raw_batch,
        channels=folder.channels,
        patch=(height, width),
        most_frames=training.num_latent_t,
        fix=f"preprocess the videos with this pipeline's VAE, at sizes that are multiples of {folder.size_multiple} pixels",
    )
