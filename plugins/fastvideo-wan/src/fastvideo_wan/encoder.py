"""Videos and captions to what the parquet data set stores: `preprocess` with Wan."""

from __future__ import annotations

import torch
from torch import Tensor

from fastvideo_diffusers.encoder import PipelineEncoder
from fastvideo_diffusers.identity import TEXT_ENCODER, VAE, StoredEncoder
from fastvideo_wan.folder import open_folder
from fastvideo_wan.image_batches import CLIP_FEATURE, latents_name, normalise_condition
from fastvideo_wan.image_conditions import IMAGE_ENCODER, ImageConditions
from fastvideo_wan.image_encoder import ImageEncoder
from fastvideo_wan.loading import load_vae
from fastvideo_wan.text import TextEncoder


def image_encoders(images: ImageConditions | None) -> tuple[StoredEncoder, ...]:
    """Whose weights decide what is stored."""
    features = images is not None and images.features is not None
    return (VAE, TEXT_ENCODER, *([StoredEncoder(IMAGE_ENCODER, IMAGE_ENCODER)] if features else []))


class WanEncoder(PipelineEncoder):
    """The VAE, text encoder and image encoder of a Wan pipeline; each is loaded at its first use.

    Args:
        model_path: folder or hub id.
        device: where the encoders run.
        dtype: of the text encoder; the others are float32.

    Raises:
        ConfigError: the path holds no Wan pipeline.
    """

    def __init__(self, model_path: str, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        self._folder = open_folder(model_path, where="model path")
        images = self._folder.images
        device = torch.device(device)
        normalised = {} if images is None else {f"{latents_name(images)}_normalised": "true"}
        self._image_encoder = ImageEncoder(model_path, device=device, where="model path")
        super().__init__(
            model_path,
            family="wan",
            geometry=self._folder.geometry,
            encoders=image_encoders(images),
            text=TextEncoder(model_path, device=device, dtype=dtype, where="model path"),
            settings={"text_dtype": str(dtype).removeprefix("torch."), **normalised},
            load_vae=lambda: load_vae(model_path, device=device, where="model path"),
            device=device,
        )

    @torch.no_grad()
    def encode_videos(self, frames: Tensor) -> list[dict[str, Tensor]]:
        """As PipelineEncoder's; of image-to-video pipelines with what the network is given of each clip's own first frame, or
        first and last: their latents as the network takes them, normalised, and their features."""
        clips, images = super().encode_videos(frames), self._folder.images
        if images is None:
            return clips
        given = [0, frames.shape[1] - 1] if images.both_ends else [0]
        video = torch.zeros_like(pixels := self.pixels(frames))  # grey, behind the scaling
        video[:, :, given] = pixels[:, :, given]
        latents = normalise_condition(self.encode_pixels(video), self._folder)
        for clip, one, own in zip(clips, latents, frames, strict=True):
            clip[latents_name(images)] = one.cpu()
            if images.features is not None:
                features = self._image_encoder.encode([own[index] for index in given]).cpu()
                clip[CLIP_FEATURE] = features if images.both_ends else features[0]
        return clips
