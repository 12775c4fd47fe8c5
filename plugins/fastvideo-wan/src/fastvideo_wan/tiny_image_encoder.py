"""The image encoder of tiny image-to-video pipelines, in transformers' real format."""

from __future__ import annotations

from pathlib import Path

from transformers import CLIPVisionConfig, CLIPVisionModel

from fastvideo_wan.image_conditions import IMAGE_ENCODER, IMAGE_PROCESSOR
from fastvideo_wan.image_encoder import image_processor_class

WIDTH = 16
IMAGE, PATCH = 28, 14
TOKENS = (IMAGE // PATCH) ** 2 + 1
IMAGE_PROCESSOR_ENTRY = {IMAGE_PROCESSOR: ["transformers", "CLIPImageProcessor"]}
"""As a pipeline's index names it, whichever class transformers puts behind the name."""
NO_IMAGE_ENCODER = dict.fromkeys((IMAGE_ENCODER, IMAGE_PROCESSOR), (None, None))


def tiny_image_encoder() -> CLIPVisionModel:
    """Three layers, so that the last but one hidden state is neither the first nor the last."""
    sizes = {"hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    return CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=IMAGE, patch_size=PATCH))


def write_image_processor(out: Path) -> None:
    """Into the folder of a pipeline."""
    crop = {"height": IMAGE, "width": IMAGE}
    image_processor_class()(size={"shortest_edge": IMAGE}, crop_size=crop).save_pretrained(out / IMAGE_PROCESSOR)
