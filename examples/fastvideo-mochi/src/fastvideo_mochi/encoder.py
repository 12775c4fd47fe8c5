"""Videos and captions to latents and embeddings: `fastvideo-distill preprocess`."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLMochi

from fastvideo_data.video_sizes import VideoGeometry
from fastvideo_diffusers.encoder import PipelineEncoder
from fastvideo_diffusers.identity import TEXT_ENCODER, VAE
from fastvideo_diffusers.loading import load_frozen
from fastvideo_mochi.folder import open_folder
from fastvideo_mochi.text import TextEncoder

GEOMETRY = VideoGeometry(frames_divisor=6, frames_remainder=1, size_multiple=16, fps=30.0)


def mochi_encoder(model_path: str, device: torch.device) -> PipelineEncoder:
    """The autoencoder and the text encoder of a Mochi pipeline.

    Raises:
        ConfigError: the path holds no Mochi pipeline.
    """
    where = "model path"
    return PipelineEncoder(
        model_path,
        family="mochi",
        geometry=GEOMETRY,
        encoders=(VAE, TEXT_ENCODER),
        text=TextEncoder(open_folder(model_path, where=where), device, where),
        settings={},
        load_vae=lambda: load_frozen(AutoencoderKLMochi, model_path, "vae", device=device, where=where),
        device=device,
    )
