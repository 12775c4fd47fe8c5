"""Videos and captions to what the parquet data set stores: `preprocess` with Wan."""

from __future__ import annotations

import torch

from fastvideo_diffusers.encoder import PipelineEncoder
from fastvideo_diffusers.identity import TEXT_ENCODER, VAE
from fastvideo_wan.folder import open_folder
from fastvideo_wan.loading import load_vae
from fastvideo_wan.text import TextEncoder


class WanEncoder(PipelineEncoder):
    """The VAE and text encoder of a Wan pipeline; each is loaded at its first use.

    Args:
        model_path: folder or hub id.
        device: where the encoders run.
        dtype: of the text encoder; the VAE is float32.

    Raises:
        ConfigError: the path holds no Wan text-to-video pipeline.
    """

    def __init__(self, model_path: str, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        folder = open_folder(model_path, where="model path")
        device = torch.device(device)
        super().__init__(
            model_path,
            family="wan",
            geometry=folder.geometry,
            encoders=(VAE, TEXT_ENCODER),
            text=TextEncoder(model_path, device=device, dtype=dtype, where="model path"),
            settings={"text_dtype": str(dtype).removeprefix("torch.")},
            load_vae=lambda: load_vae(model_path, device=device, where="model path"),
            device=device,
        )
