"""Between the autoencoder's latents and those that the network sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKLMochi
from torch import Tensor

SPACE, TIME = 8, 6
"""Pixels per latent pixel, frames per latent frame; the first frame has a latent of its own."""


@dataclass(frozen=True)
class LatentScale:
    """Normalised latents are (z - mean) * factor, per channel, each [1, C, 1, 1, 1]."""

    mean: Tensor
    factor: Tensor

    @classmethod
    def of(cls, path: str, device: torch.device) -> LatentScale:
        """As the configuration of a pipeline's autoencoder says."""
        config = AutoencoderKLMochi.load_config(path, subfolder="vae")
        channels, scaling = config["latent_channels"], config.get("scaling_factor", 1.0)
        mean = torch.tensor(config.get("latents_mean") or [0.0] * channels, device=device)
        std = torch.tensor(config.get("latents_std") or [1.0] * channels, device=device)
        return cls(mean.view(1, -1, 1, 1, 1), scaling / std.view(1, -1, 1, 1, 1))

    def normalise(self, z: Tensor) -> Tensor:
        return (z.float() - self.mean) * self.factor

    def denormalise(self, latents: Tensor) -> Tensor:
        return latents.float() / self.factor + self.mean


def latent_shape(channels: int, *, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
    """[C, T, H, W] of the latents of a video of 6 k + 1 frames."""
    return channels, (num_frames - 1) // TIME + 1, height // SPACE, width // SPACE
