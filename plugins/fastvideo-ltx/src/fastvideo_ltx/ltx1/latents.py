"""Between the autoencoder's latents and those that the network sees, and from latents to frames."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLLTXVideo
from diffusers.video_processor import VideoProcessor
from torch import Tensor

from fastvideo_ltx.folder import LtxFolder


def normalise(latents: Tensor, folder: LtxFolder) -> Tensor:
    """(z - mean) scaling_factor / std per channel, float32; z [B, C, F, H, W]."""
    scaling: float = folder.facts["scaling_factor"]
    mean = _per_channel(folder.latents_mean, latents.device)
    return (latents.float() - mean) * scaling / _per_channel(folder.latents_std, latents.device)


def denormalise(latents: Tensor, folder: LtxFolder) -> Tensor:
    """z std / scaling_factor + mean per channel, float32, in the order of operations that LTXPipeline uses."""
    scaling: float = folder.facts["scaling_factor"]
    scaled = latents.float() * _per_channel(folder.latents_std, latents.device) / scaling
    return scaled + _per_channel(folder.latents_mean, latents.device)


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
    device = next(vae.parameters()).device
    z = denormalise(latents.to(device), folder)
    timestep = None
    if vae.config.timestep_conditioning:
        home = torch.device("cpu") if generator is None else generator.device
        noise = torch.randn(z.shape, generator=generator, device=home).to(device)
        timestep = torch.full((len(z),), decode_timestep, device=device)
        level = timestep[:, None, None, None, None]
        z = (1 - level) * z + level * noise
    video = vae.decode(z, timestep, return_dict=False)[0]
    processor = VideoProcessor(vae_scale_factor=folder.spatial_factor)
    return torch.from_numpy(processor.postprocess_video(video, output_type="np"))


def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device).view(1, -1, 1, 1, 1)
