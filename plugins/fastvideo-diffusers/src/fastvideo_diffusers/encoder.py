"""Videos and captions to what the parquet data set stores: `preprocess` with a pipeline's autoencoder and text encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fastvideo_data.captions import CaptionCut, CaptionEncoder, caption_cut
from fastvideo_data.video_sizes import VideoGeometry
from fastvideo_diffusers.identity import StoredEncoder, encoder_identity


class PipelineEncoder:
    """The VAE and text encoder of a pipeline; each is loaded at its first use.

    Args:
        path: folder or hub id.
        family: as run.yaml names it.
        geometry: the clips that the VAE encodes.
        encoders: whose weights tell its encodings from those of others.
        text: the text encoder.
        settings: what else a stored embedding depends on.
        load_vae: gives the autoencoder: float32, frozen.
        device: where it runs.
    """

    def __init__(
        self,
        path: str,
        *,
        family: str,
        geometry: VideoGeometry,
        encoders: Sequence[StoredEncoder],
        text: CaptionEncoder,
        settings: Mapping[str, str],
        load_vae: Callable[[], Any],
        device: torch.device,
    ) -> None:
        self._path = path
        self._family = family
        self._geometry = geometry
        self._encoders = encoders
        self._text = text
        self._settings = settings
        self._load_vae = load_vae
        self._device = device
        self._vae: Any = None
        self._description: dict[str, str] | None = None

    @property
    def geometry(self) -> VideoGeometry:
        """Sizes, lengths and frame rate of the clips."""
        return self._geometry

    def describe(self) -> dict[str, str]:
        """The encoding's identity, taken from the weights themselves, so that a moved folder keeps it."""
        if self._description is None:
            identity = encoder_identity(self._path, self._encoders, where="model path", download=True)
            assert identity is not None
            about = {"family": self._family, **identity, **self._settings}
            self._description = {**about, "latents_normalised": "false"}
        return dict(self._description)

    @torch.no_grad()
    def encode_videos(self, frames: Tensor) -> list[dict[str, Tensor]]:
        """The mode of the VAE's posterior, un-normalised.

        Args:
            frames: uint8 RGB [B, T, H, W, 3], of a size that `geometry` accepts.

        Returns:
            per clip {"vae_latent": float32 [C, T', H', W']}, on the CPU.

        Raises:
            DataError: the size does not fit; the VAE itself may silently drop frames.
        """
        _, num_frames, height, width, _ = frames.shape
        self.geometry.check(height=height, width=width, num_frames=num_frames)
        latents = self.encode_pixels(self.pixels(frames))
        return [{"vae_latent": latent.cpu()} for latent in latents]

    def pixels(self, frames: Tensor) -> Tensor:
        """uint8 frames [B, T, H, W, 3] as the VAE takes a video: [B, 3, T, H, W] in [-1, 1], on its device."""
        return frames.to(self._device).permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0

    def encode_pixels(self, video: Tensor) -> Tensor:
        """The mode of the VAE's posterior of a video as `pixels` gives it."""
        if self._vae is None:
            self._vae = self._load_vae()
        mode: Tensor = self._vae.encode(video).latent_dist.mode()
        return mode

    def encode_texts(self, captions: Sequence[str]) -> list[Tensor]:
        """Per caption its embedding [L, D], as the pipeline encodes it, without padding; on the CPU."""
        return [embedding.cpu() for embedding in self._text.encode(captions)]

    def caption_cut(self, caption: str) -> CaptionCut | None:
        """What is cut off a caption; None when all of it is read."""
        return caption_cut(self._text, caption)
