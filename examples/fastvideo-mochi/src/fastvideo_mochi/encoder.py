"""Videos and captions to latents and embeddings: `fastvideo-distill preprocess`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from fastvideo_data.captions import CaptionCut
from fastvideo_data.video_sizes import VideoGeometry
from fastvideo_mochi.folder import check_folder, load_vae
from fastvideo_mochi.latents import SPACE, TIME
from fastvideo_mochi.text import TextEncoder

FPS = 30.0
PATCH = 2
GEOMETRY = VideoGeometry(frames_divisor=TIME, frames_remainder=1, size_multiple=SPACE * PATCH, fps=FPS)


class MochiEncoder:
    """The autoencoder and the text encoder of a Mochi pipeline.

    Raises:
        ConfigError: the path holds no Mochi pipeline.
    """

    def __init__(self, model_path: str, device: torch.device) -> None:
        check_folder(model_path, "model path")
        self._device = device
        self._vae = load_vae(model_path, device, "model path")
        self._text = TextEncoder(model_path, device, "model path")

    @property
    def geometry(self) -> VideoGeometry:
        """6 k + 1 frames, sizes in multiples of 16 pixels, 30 frames per second."""
        return GEOMETRY

    def describe(self) -> dict[str, str]:
        """What identifies the encoding: some values of every weight, so that a moved folder keeps its identity."""
        digest = hashlib.sha256()
        for tensor in self._vae.state_dict().values():
            digest.update(tensor.flatten()[:16].float().cpu().numpy().tobytes())
        return {"family": "mochi", "vae": digest.hexdigest()[:16], "latents_normalised": "false"}

    @torch.no_grad()
    def encode_videos(self, frames: Tensor) -> list[dict[str, Tensor]]:
        """uint8 [B, T, H, W, 3] -> per clip {"vae_latent": [12, (T - 1) / 6 + 1, H / 8, W / 8]}, the posterior's mode."""
        video = frames.to(self._device).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
        latents = self._vae.encode(video).latent_dist.mode()
        return [{"vae_latent": latent.cpu()} for latent in latents]

    def encode_texts(self, captions: Sequence[str]) -> list[Tensor]:
        """Per caption its embedding [L, D]."""
        return self._text.encode(captions)

    def caption_cut(self, caption: str) -> CaptionCut | None:
        """What is cut off a caption; None when all of it is read."""
        return self._text.caption_cut(caption)
