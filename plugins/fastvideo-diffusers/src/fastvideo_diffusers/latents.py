"""Latents [B, C, T, H, W] of a pipeline's video autoencoder: taken from the data or of the run's size, scaled, decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers.video_processor import VideoProcessor
from torch import Tensor

from fastvideo_core.config.training import TrainingArgs
from fastvideo_data.video_sizes import data_free_size
from fastvideo_diffusers.folder import PipelineFolder
from fastvideo_diffusers.stored_tensors import stored_latents


def stored_video(
    raw_batch: Mapping[str, Any], folder: PipelineFolder, training: TrainingArgs, *, size_multiple: int
) -> Tensor:
    """`vae_latent` [B, C, T, H, W] as it is stored, at most `num_latent_t` frames of it.

    Args:
        size_multiple: pixels that height and width are multiples of.

    Raises:
        DataError: there is none, or one that this pipeline cannot take.
    """
    patch = size_multiple // folder.spatial_factor
    return stored_latents(
        raw_batch,
        channels=folder.channels,
        patch=(patch, patch),
        most_frames=training.num_latent_t,
        fix=f"preprocess the videos with this pipeline's VAE, at sizes that are multiples of {size_multiple} pixels",
    )


def data_free_latents(
    raw_batch: Mapping[str, Any],
    folder: PipelineFolder,
    training: TrainingArgs,
    *,
    size_multiple: int,
    stored: Callable[[], Tensor],
) -> tuple[int, int, int]:
    """(T, H, W) of latents that are not taken from the data: of the run's size, else as the data's latents are.

    Args:
        size_multiple: pixels that height and width are multiples of.
        stored: the batch's latents [B, C, T, H, W], once they fit.

    Raises:
        ConfigError: the sizes of the run are missing or contradict each other.
        DataError: the data's latents give the size and do not fit.
    """
    sizes = (training.num_height, training.num_width, training.num_frames)
    if sizes == (None, None, None) and "vae_latent" in raw_batch:
        _, _, frames, height, width = stored().shape
        return frames, height, width
    size = data_free_size(training, size_multiple=size_multiple, temporal_factor=folder.temporal_factor)
    return folder.latent_size(size)


def normalise(latents: Tensor, folder: PipelineFolder) -> Tensor:
    """(z - mean) scaling_factor / std per channel, float32; z [B, C, T, H, W]."""
    scaled = (latents.float() - per_channel(folder.latents_mean, latents.device)) * folder.scaling_factor
    return scaled / per_channel(folder.latents_std, latents.device)


def denormalise(latents: Tensor, folder: PipelineFolder) -> Tensor:
    """z std / scaling_factor + mean per channel, float32, in the order of operations of most pipelines."""
    scaled = latents.float() * per_channel(folder.latents_std, latents.device) / folder.scaling_factor
    return scaled + per_channel(folder.latents_mean, latents.device)


def per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """[1, C, 1, 1, 1]."""
    return torch.tensor(values, device=device).view(1, -1, 1, 1, 1)


def frames_of(pixels: Tensor, folder: PipelineFolder) -> Tensor:
    """An autoencoder's video [B, 3, F, H, W] as float32 frames [B, F, H, W, 3] in [0, 1], on the CPU, as pipelines give it."""
    processor = VideoProcessor(vae_scale_factor=folder.spatial_factor)
    return torch.from_numpy(processor.postprocess_video(pixels, output_type="np"))


def shown(frames: Tensor) -> Tensor:
    """Frames in [0, 1] as uint8."""
    return (frames * 255).round().to(torch.uint8)
