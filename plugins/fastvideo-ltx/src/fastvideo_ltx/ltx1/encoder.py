"""Videos and captions to what the parquet data set stores: `preprocess` with LTX-Video."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKLLTXVideo
from torch import Tensor

from fastvideo_data.captions import CaptionCut, CaptionEncoder, caption_cut
from fastvideo_data.video_sizes import VideoGeometry
from fastvideo_diffusers.identity import TEXT_ENCODER, VAE, encoder_identity
from fastvideo_diffusers.loading import load_model


class LtxVideoEncoder:
    """The VAE and text encoder of an LTX-Video pipeline; each is loaded at its first use.

    Args:
        path: folder or hub id.
        geometry: the clips that the VAE encodes.
        text: the text encoder.
        text_settings: what else an embedding depends on.
        device: where the VAE runs; it is float32.
    """

    def __init__(
        self,
        path: str,
        *,
        geometry: VideoGeometry,
        text: CaptionEncoder,
        text_settings: dict[str, str],
        device: torch.device,
    ) -> None:
        self._path = path
        self._geometry = geometry
        self._text = text
        self._text_settings = text_settings
        self._device = device
        self._vae: AutoencoderKLLTXVideo | None = None
        self._description: dict[str, str] | None = None

    @property
    def geometry(self) -> VideoGeometry:
        """8 k + 1 frames, sizes in multiples of 32 pixels."""
        return self._geometry

    def describe(self) -> dict[str, str]:
        """The encoding's identity, taken from the weights themselves, so that a moved folder keeps it."""
        if self._description is None:
            identity = encoder_identity(self._path, (VAE, TEXT_ENCODER), where="model path", download=True)
            assert identity is not None
            self._description = {
                "family": "ltx",
                **identity,
                **self._text_settings,
                "latents_normalised": "false",
            }
        return dict(self._description)

    @torch.no_grad()
    def encode_videos(self, frames: Tensor) -> list[dict[str, Tensor]]:
        """The mode of the VAE's posterior, un-normalised.

        Args:
            frames: uint8 RGB [B, T, H, W, 3], of a size that `geometry` accepts.

        Returns:
            per clip {"vae_latent": float32 [C, (T - 1) / 8 + 1, H / 32, W / 32]}, on the CPU.

        Raises:
            DataError: the size does not fit.
        """
        _, num_frames, height, width, _ = frames.shape
        self.geometry.check(height=height, width=width, num_frames=num_frames)
        video = frames.to(self._device).permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0
        latents = self._autoencoder().encode(video).latent_dist.mode()
        return [{"vae_latent": latent.cpu()} for latent in latents]

    def encode_texts(self, captions: Sequence[str]) -> list[Tensor]:
        """Per caption its embedding [L, D], as the pipeline encodes it, without padding; on the CPU."""
        return [embedding.cpu() for embedding in self._text.encode(captions)]

    def caption_cut(self, caption: str) -> CaptionCut | None:
        """What is cut off a caption; None when all of it is read."""
        return caption_cut(self._text, caption)

    def _autoencoder(self) -> AutoencoderKLLTXVideo:
        if self._vae is None:
            self._vae = load_model(
                AutoencoderKLLTXVideo,
                self._path,
                "vae",
                dtype=torch.float32,
                device=self._device,
                where="model path",
            ).requires_grad_(False)
        return self._vae
