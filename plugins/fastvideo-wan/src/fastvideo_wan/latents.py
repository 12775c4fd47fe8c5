"""Between the autoencoder's latents and those that the network sees, and from latents to frames."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLWan
from diffusers.video_processor import VideoProcessor
from torch import Tensor

from fastvideo_data.video_sizes import VideoSize
from fastvideo_wan.folder import WanFolder


def normalise(latents: Tensor, folder: WanFolder) -> Tensor:
    """(z - mean) / std per channel, float32; z [B, 16, T, H, W]."""
    mean = _per_channel(folder.latents_mean, latents.device)
    return (latents.float() - mean) / _per_channel(folder.latents_std, latents.device)


def denormalise(latents: Tensor, folder: WanFolder) -> Tensor:
    """z std + mean per channel, float32, in the order of operations that WanPipeline uses."""
    inverse_std = 1.0 / _per_channel(folder.latents_std, latents.device)
    return latents.float() / inverse_std + _per_channel(folder.latents_mean, latents.device)


def latent_shape(folder: WanFolder, *, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
    """[16, T, H, W] of a video of num_frames (4 k + 1) frames of height x width pixels."""
    return folder.channels, *folder.latent_size(VideoSize(height, width, num_frames))


@torch.no_grad()
def decode_frames(vae: AutoencoderKLWan, latents: Tensor, folder: WanFolder) -> Tensor:
    """Normalised latents [B, 16, T, H, W] as float32 frames [B, F, H, W, 3] in [0, 1], on the CPU."""
    device = next(vae.parameters()).device
    video = vae.decode(denormalise(latents.to(device), folder), return_dict=False)[0]
    processor = VideoProcessor(vae_scale_factor=folder.spatial_factor)
    return torch.from_numpy(processor.postprocess_video(video, output_type="np"))


def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device).view(1, -1, 1, 1, 1)
