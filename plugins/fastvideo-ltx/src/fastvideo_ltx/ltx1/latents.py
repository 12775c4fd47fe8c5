"""From the latents that the network sees to frames."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLLTXVideo
from torch import Tensor

from fastvideo_diffusers.latents import denormalise, frames_of
from fastvideo_ltx.folder import LtxFolder


@torch.no_grad()
def decode_frames(
    vae: AutoencoderKLLTXVideo,
    latents: Tensor,
    folder: LtxFolder,
    *,
    decode_timestep: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Normalised latents [B, C, F, H, W] as float32 frames [B, T, H, W, 3] in [0, 1], on the CPU.

    Args:
        decode_timestep: of VAEs with timestep conditioning, which see latents with noise of that level.
        generator: for that noise.
    """
    z = denormalise(latents.to(vae.device), folder)
    timestep = None
    if vae.config.timestep_conditioning:
        home = torch.device("cpu") if generator is None else generator.device
        noise = torch.randn(z.shape, generator=generator, device=home).to(z.device)
        timestep = torch.full((len(z),), decode_timestep, device=z.device)
        level = timestep[:, None, None, None, None]
        z = (1 - level) * z + level * noise
    return frames_of(vae.decode(z, timestep, return_dict=False)[0], folder)
