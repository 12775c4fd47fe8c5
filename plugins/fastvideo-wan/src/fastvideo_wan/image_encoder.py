"""Images to the features that Wan 2.1's image-to-video networks attend to, as WanImageToVideoPipeline makes them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionModel
from transformers.utils import logging

from fastvideo_diffusers.lazy_weights import LazyWeights
from fastvideo_diffusers.loading import component_folder, load_text_model, readable
from fastvideo_wan.image_conditions import IMAGE_ENCODER, IMAGE_PROCESSOR


def image_processor_class() -> Any:
    """CLIPImageProcessor, without the remark that torchvision would be faster."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        from transformers import CLIPImageProcessor
    finally:
        logging.set_verbosity(level)
    return CLIPImageProcessor


class ImageEncoder:
    """The image encoder of a pipeline, float32 as the pipeline's own examples load it; loaded at its first use.

    Args:
        path: folder or hub id of the pipeline.
        device: where it runs.
        where: how errors name the place that gave the path.
    """

    def __init__(self, path: str, *, device: torch.device, where: str = "path") -> None:
        self._device = device
        self._kept: dict[bytes, Tensor] = {}

        def load() -> tuple[Any, Any]:
            folder = component_folder(path, IMAGE_PROCESSOR, where=where)
            with readable(path, IMAGE_PROCESSOR, where):
                processor = image_processor_class().from_pretrained(str(folder))
            encoder = load_text_model(
                CLIPVisionModel, path, IMAGE_ENCODER, dtype=torch.float32, device=device, where=where
            )
            return processor, encoder

        self._models = LazyWeights(load, device)

    @torch.no_grad()
    def encode(self, images: Sequence[Tensor]) -> Tensor:
        """The last but one hidden state [B, tokens, D] of images, uint8 [H, W, 3], on the encoder's device."""
        processor, encoder = self._models.get()
        pixels = processor(images=[as_image(one) for one in images], return_tensors="pt").to(self._device)
        hidden: Tensor = encoder(**pixels, output_hidden_states=True).hidden_states[-2]
        return hidden

    def features(self, images: Sequence[Tensor]) -> Tensor:
        """As `encode`, once for the same images; afterwards the weights are let go of."""
        key = hashlib.sha256(b"".join(one.numpy().tobytes() for one in images)).digest()
        if key not in self._kept:
            self._kept[key] = self.encode(images).cpu()
            self._models.free()
        return self._kept[key].to(self._device)


def as_image(pixels: Tensor) -> Image.Image:
    """uint8 [H, W, 3] as pipelines take an image."""
    return Image.fromarray(pixels.cpu().contiguous().numpy())
