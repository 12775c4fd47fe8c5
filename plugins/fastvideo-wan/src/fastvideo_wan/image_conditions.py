"""What a pipeline's files say of the images that its network is conditioned on; no weights are read here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import CLIPVisionConfig

from fastvideo_core.errors import ConfigError, Problem
from fastvideo_data.prompt_fit import FIRST, LAST, ImageUse
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_diffusers.loading import readable
from fastvideo_diffusers.pipeline_files import DAMAGED

IMAGE_ENCODER, IMAGE_PROCESSOR = "image_encoder", "image_processor"
ATTENDED_TEXT = 512
"""Tokens that diffusers' attention takes for the text, from the end; what is before them it takes for the image."""


@dataclass(frozen=True)
class ImageConditions:
    """The given frames of a network that has them as channels beside the noise (WanImageToVideoPipeline).

    Args:
        both_ends: first and last frame, always (FLF2V); else the first.
        features: (tokens, width) of an image's features, of networks that attend to them (Wan 2.1); None for others (Wan 2.2).
    """

    both_ends: bool
    features: tuple[int, int] | None

    @property
    def use(self) -> ImageUse:
        """The images of a prompt: an image encoder's features of two fit a network that always has two alone."""
        if self.both_ends:
            return ImageUse(needed=(FIRST, LAST))
        return ImageUse(needed=(FIRST,), optional=(LAST,) if self.features is None else ())

    @property
    def components(self) -> tuple[str, ...]:
        """The sub-folders of the pipeline that these need."""
        return () if self.features is None else (IMAGE_ENCODER, IMAGE_PROCESSOR)


def image_channels(channels: int, temporal_factor: int) -> int:
    """The channels behind the noise: a mask for each video frame of a latent frame, and the latents of the given frames."""
    return temporal_factor + channels


def named_components(index: Mapping[str, Any]) -> tuple[str, ...]:
    """The image encoder and its processor, where the pipeline's index names them."""
    return tuple(name for name in (IMAGE_ENCODER, IMAGE_PROCESSOR) if (index.get(name) or [None])[0] is not None)


def read_image_conditions(
    path: str, index: Mapping[str, Any], transformer: Mapping[str, Any], *, text_length: int, where: str
) -> ImageConditions:
    """Of a WanImageToVideoPipeline whose network has channels for them.

    Args:
        transformer: its configuration.
        text_length: tokens of a text.

    Raises:
        ConfigError: the files contradict each other, or the image encoder's configuration cannot be read.
    """
    width, positions = transformer["image_dim"], transformer["pos_embed_seq_len"]
    if width is None:
        return ImageConditions(both_ends=False, features=None)
    problems = []
    if transformer["added_kv_proj_dim"] is None:
        found = f"image_dim in {TRANSFORMER}/ is {width!r} and added_kv_proj_dim is None"
        problems.append(Problem(found, where, allowed="both, or neither", fix=DAMAGED))
    if text_length != ATTENDED_TEXT:
        found = f"model_max_length in tokenizer/ is {text_length}, and the network attends to an image's features"
        fix = "set it to 512: with fewer tokens of text the network would take text for image, without a word"
        problems.append(Problem(found, where, allowed=f"{ATTENDED_TEXT} tokens of text", fix=fix))
    missing = [name for name in (IMAGE_ENCODER, IMAGE_PROCESSOR) if name not in named_components(index)]
    if missing:
        found = f"model_index.json names no {' and no '.join(missing)}, and image_dim in {TRANSFORMER}/ is {width!r}"
        problems.append(Problem(found, where, fix=DAMAGED))
    if problems:
        raise ConfigError(problems)
    with readable(path, IMAGE_ENCODER, where):
        encoder = CLIPVisionConfig.from_pretrained(path, subfolder=IMAGE_ENCODER)
        tokens = (int(encoder.image_size) // int(encoder.patch_size)) ** 2 + 1
    if encoder.hidden_size != width:
        found = f"hidden_size in {IMAGE_ENCODER}/ is {encoder.hidden_size!r}"
        problems.append(Problem(found, where, f"{width!r}, the image_dim in {TRANSFORMER}/", DAMAGED))
    if positions not in (None, 2 * tokens):
        found = f"pos_embed_seq_len in {TRANSFORMER}/ is {positions!r}"
        allowed = f"null, or {2 * tokens}: the {tokens} tokens of two images"
        problems.append(Problem(found, where, allowed=allowed, fix=DAMAGED))
    if problems:
        raise ConfigError(problems)
    return ImageConditions(both_ends=positions is not None, features=(tokens, width))
