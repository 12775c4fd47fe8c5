"""From the latents that the network sees to frames."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from fastvideo_diffusers.latents import frames_of, per_channel
from fastvideo_wan.folder import WanFolder


def denormalise(latents: Tensor, folder: WanFolder) -> Tensor:
    """z std + mean per channel, float32, in the order of operations that WanPipeline uses."""
    inverse_std = 1.0 / per_channel(folder.latents_std, latents.device)
    return latents.float() / inverse_std + per_channel(folder.latents_mean, latents.device)


@torch.no_grad()
def decode_frames(vae: AutoencoderKLWan, latents: Tensor, folder: WanFolder) -> Tensor:
    """Normalised latents [B, 16, T, H, W] as float32 frames [B, F, H, W, 3] in [0, 1], on the CPU."""
    z = denormalise(latents.to(vae.device), folder)
    return frames_of(vae.decode(z, return_dict=False)[0], folder)
