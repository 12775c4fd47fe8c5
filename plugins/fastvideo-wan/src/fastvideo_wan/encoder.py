"""Videos and captions to what the parquet data set stores: `preprocess` with Wan."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from fastvideo_data.captions import CaptionCut
from fastvideo_data.video_sizes import VideoGeometry
from fastvideo_diffusers.identity import TEXT_ENCODER, VAE, encoder_identity
from fastvideo_wan.folder import open_folder
from fastvideo_wan.loading import load_vae
from fastvideo_wan.sizes import GEOMETRY
from fastvideo_wan.text import TextEncoder


class WanEncoder:
    """The VAE and text encoder of a Wan 2.1 pipeline; each is loaded at its first use.

    Args:
        model_path: folder or hub id.
        device: where the encoders run.
        dtype: of the text encoder; the VAE is float32.

    Raises:
        ConfigError: the path holds no Wan 2.1 text-to-video pipeline.
    """

    def __init__(self, model_path: str, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        open_folder(model_path, where="model path")
        self._path = model_path
        self._device = torch.device(device)
        self._dtype = dtype
        self._text = TextEncoder(model_path, device=self._device, dtype=dtype, where="model path")
        self._vae: AutoencoderKLWan | None = None
        self._description: dict[str, str] | None = None

    @property
    def geometry(self) -> VideoGeometry:
        """4 k + 1 frames, sizes in multiples of 16 pixels, 16 frames per second."""
        return GEOMETRY

    def describe(self) -> dict[str, str]:
        """The encoding's identity, taken from the weights themselves, so that a moved folder keeps it."""
        if self._description is None:
            identity = encoder_identity(self._path, (VAE, TEXT_ENCODER), where="model path", download=True)
            assert identity is not None
            self._description = {
                "family": "wan",
                **identity,
                "text_dtype": str(self._dtype).removeprefix("torch."),
                "latents_normalised": "false",
            }
        return dict(self._description)

    @torch.no_grad()
    def encode_videos(self, frames: Tensor) -> list[dict[str, Tensor]]:
        """The mode of the VAE's posterior, un-normalised.

        Args:
            frames: uint8 RGB [B, T, H, W, 3], of a size that `geometry` accepts.

        Returns:
            per clip {"vae_latent": float32 [16, (T - 1) / 4 + 1, H / 8, W / 8]}, on the CPU.

        Raises:
            DataError: the size does not fit; the VAE itself would silently drop frames.
        """
        _, num_frames, height, width, _ = frames.shape
        self.geometry.check(height=height, width=width, num_frames=num_frames)
        video = frames.to(self._device).permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0
        latents = self._autoencoder().encode(video).latent_dist.mode()
        return [{"vae_latent": latent.cpu()} for latent in latents]

    def encode_texts(self, captions: Sequence[str]) -> list[Tensor]:
        """Per caption its embedding [L, D], L <= 512 tokens, as WanPipeline encodes it; on the CPU."""
        return [embedding.cpu() for embedding in self._text.encode(captions)]

    def caption_cut(self, caption: str) -> CaptionCut | None:
        """What is cut off a caption; None when all of it is read."""
        return self._text.caption_cut(caption)

    def _autoencoder(self) -> AutoencoderKLWan:
        if self._vae is None:
            self._vae = load_vae(self._path, device=self._device, where="model path")
        return self._vae
