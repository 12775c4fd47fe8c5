"""Which pipelines this package can use, and what their configuration files say: no weights are read here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanTransformer3DModel
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from fastvideo_core.errors import ConfigError, Problem
from fastvideo_data.prompt_fit import FIRST, TEXT_ALONE, ImageUse
from fastvideo_data.video_sizes import VideoGeometry
from fastvideo_diffusers.folder import (
    TRANSFORMER,
    PipelineFolder,
    check_components,
    check_values,
    noise_axis,
    number_list,
    open_pipeline,
    read_config,
    whole_numbers,
)
from fastvideo_diffusers.pipeline_files import DAMAGED
from fastvideo_wan.image_conditions import (
    IMAGE_ENCODER,
    ImageConditions,
    image_channels,
    named_components,
    read_image_conditions,
)
from fastvideo_wan.sizes import USUAL, USUAL_OF_TI2V, UsualVideo

SUPPORTED = (
    "Wan 2.1 text-to-video in diffusers format (for example Wan-AI/Wan2.1-T2V-1.3B-Diffusers), image-to-video (for example "
    "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers) or first and last frame (Wan-AI/Wan2.1-FLF2V-14B-720P-diffusers), or Wan 2.2 "
    "T2V-A14B, I2V-A14B (Wan-AI/Wan2.2-T2V-A14B-Diffusers) and TI2V-5B (Wan-AI/Wan2.2-TI2V-5B-Diffusers)"
)
PIPELINE, IMAGE_PIPELINE = "WanPipeline", "WanImageToVideoPipeline"
"""The classes of diffusers whose folders are read."""
TRANSFORMER_2 = "transformer_2"
"""The network for low noise, of pipelines that have one."""
COMPONENTS = (TRANSFORMER, "vae", "text_encoder", "tokenizer", "scheduler")
WEIGHTED = (TRANSFORMER, "vae", "text_encoder")
TEXT_LENGTH = 512
"""Tokens that Wan's networks attend to. They have no text mask, so that the zeros behind a short caption count. A pipeline whose
tokenizer takes fewer (its model_max_length) is one for so many."""


@dataclass(frozen=True, kw_only=True)
class WanFolder(PipelineFolder):
    """A Wan pipeline; `text_length` is 512, or the tokenizer's limit below it.

    Args:
        pipeline: the name of its class in diffusers.
        patch_size: (frames, height, width) of latents that become one token.
        boundary_ratio: of two networks, the noise level sigma in (0, 1) from which on the first is called and below which the
            second; None for one network.
        images: of a network that has given frames as channels beside the noise (image-to-video); None for others.
        expand_timesteps: whether every token has a noise level of its own (TI2V): a first frame can be given by keeping it clean.
    """

    pipeline: str
    patch_size: tuple[int, int, int]
    boundary_ratio: float | None = None
    images: ImageConditions | None = None
    expand_timesteps: bool = False

    @property
    def networks(self) -> tuple[str, ...]:
        return (TRANSFORMER,) if self.boundary_ratio is None else (TRANSFORMER, TRANSFORMER_2)

    @property
    def components(self) -> tuple[str, ...]:
        """The sub-folders of the pipeline."""
        images = () if self.images is None else self.images.components
        return (*COMPONENTS, *self.networks[1:], *images)

    @property
    def latent_space(self) -> dict[str, object]:
        frames, features = "none", None
        if self.images is not None:
            frames, features = "first and last" if self.images.both_ends else "first", self.images.features
        more = {"patch_size": self.patch_size, "given frames": frames, "image features": features}
        return super().latent_space | more | {"expand_timesteps": self.expand_timesteps}

    @property
    def image_use(self) -> ImageUse:
        if self.images is not None:
            return self.images.use
        return ImageUse(optional=(FIRST,)) if self.expand_timesteps else TEXT_ALONE

    @property
    def size_multiple(self) -> int:
        """Pixels that height and width are multiples of."""
        return self.spatial_factor * math.lcm(*self.patch_size[1:])

    @property
    def geometry(self) -> VideoGeometry:
        """The videos that its autoencoder encodes."""
        frames, both_ends = self.temporal_factor, self.images is not None and self.images.both_ends
        return VideoGeometry(
            frames_divisor=frames,
            frames_remainder=1,
            size_multiple=self.size_multiple,
            fps=self.usual.fps,
            least_frames=1 + frames if both_ends else 1,
        )

    @property
    def usual(self) -> UsualVideo:
        """The videos that it makes where nothing else is said."""
        return USUAL_OF_TI2V if self.expand_timesteps else USUAL


def open_folder(path: str, *, where: str) -> WanFolder:
    """Reads a pipeline's configuration files; see `fastvideo_diffusers.folder.open_pipeline`.

    Raises:
        ConfigError: the path holds no Wan pipeline, an incomplete one, or a variant that is not supported.
    """

    def read(index: Mapping[str, Any], where: str) -> WanFolder:
        return _read(path, index, where)

    return open_pipeline(path, read, what="Wan pipeline", supported=SUPPORTED, where=where)


def _read(path: str, index: Mapping[str, Any], where: str) -> WanFolder:
    def config(kind: Any, subfolder: str) -> dict[str, Any]:
        return read_config(kind, path, subfolder, supported=SUPPORTED, where=where)

    further = _check_index(index, where)
    images = named_components(index) if _takes_image_channels(index) else ()
    weighted = (*WEIGHTED, *further, *(name for name in images if name == IMAGE_ENCODER))
    check_components(path, (*COMPONENTS, *further, *images), weighted, where=where)
    transformer, vae = config(WanTransformer3DModel, TRANSFORMER), config(AutoencoderKLWan, "vae")
    for name in further:
        _check_alike(transformer, config(WanTransformer3DModel, name), where)
    scheduler = config(FlowMatchEulerDiscreteScheduler, "scheduler")
    statistics = f"{vae['z_dim']} numbers", number_list((int, float), vae["z_dim"])
    check_values(
        [
            (TRANSFORMER, transformer, "patch_size", "3 whole numbers", number_list(int, 3)),
            *whole_numbers(TRANSFORMER, transformer, "text_dim"),
            *whole_numbers("vae", vae, "z_dim"),
            ("vae", vae, "latents_mean", *statistics),
            ("vae", vae, "latents_std", *statistics),
            *whole_numbers("vae", vae, "scale_factor_temporal", "scale_factor_spatial"),
            *noise_axis(scheduler),
        ],
        where=where,
    )
    _check_variant(index, transformer, vae, where)
    text_length = _text_length(path)
    conditions = None
    if _takes_image_channels(index):
        conditions = read_image_conditions(path, index, transformer, text_length=text_length, where=where)
    return WanFolder(
        path=path,
        pipeline=index["_class_name"],
        images=conditions,
        text_dim=int(transformer["text_dim"]),
        text_length=text_length,
        patch_size=tuple(transformer["patch_size"]),
        boundary_ratio=index["boundary_ratio"] if further else None,
        expand_timesteps=bool(index.get("expand_timesteps")),
        latents_mean=tuple(vae["latents_mean"]),
        latents_std=tuple(vae["latents_std"]),
        temporal_factor=int(vae["scale_factor_temporal"]),
        spatial_factor=int(vae["scale_factor_spatial"]),
        scheduler=scheduler,
    )


def _text_length(path: str) -> int:
    limit = get_tokenizer_config(path, subfolder="tokenizer").get("model_max_length")
    return min(TEXT_LENGTH, int(limit)) if isinstance(limit, int | float) and limit > 0 else TEXT_LENGTH


def _check_index(index: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The further networks that the pipeline has."""
    problems = []
    ratio, has_second = index.get("boundary_ratio"), (index.get(TRANSFORMER_2) or [None])[0] is not None
    if index.get("_class_name") not in (PIPELINE, IMAGE_PIPELINE):
        allowed = f"a {PIPELINE} or {IMAGE_PIPELINE}: {SUPPORTED}"
        problems.append(Problem(f"is a {index.get('_class_name')}", where, allowed=allowed))
    if has_second != (ratio is not None):
        found = (
            f"boundary_ratio in model_index.json is {ratio!r}, and there is {'a' if has_second else 'no'} transformer_2"
        )
        problems.append(Problem(found, where, allowed="both, or neither", fix=DAMAGED))
    elif has_second and not (isinstance(ratio, float) and 0 < ratio < 1):
        found = f"boundary_ratio in model_index.json is {ratio!r}"
        problems.append(Problem(found, where, allowed="a number between 0 and 1", fix=DAMAGED))
    if has_second and (index.get(TRANSFORMER) or [None])[0] is None:
        problems.append(Problem("has a transformer_2 and no transformer", where, allowed=SUPPORTED, fix=DAMAGED))
    if has_second and index.get("expand_timesteps"):
        problems.append(Problem("has two networks, and a noise level for every token", where, allowed=SUPPORTED))
    if problems:
        raise ConfigError(problems)
    return (TRANSFORMER_2,) if has_second else ()


def _check_alike(first: Mapping[str, Any], second: Mapping[str, Any], where: str) -> None:
    """Both networks take the same latents and the same text, and the same width of features."""
    keys = (
        "patch_size",
        "text_dim",
        "in_channels",
        "out_channels",
        "image_dim",
        "pos_embed_seq_len",
        "num_attention_heads",
        "attention_head_dim",
    )
    problems = [
        Problem(
            f"{key} in {TRANSFORMER_2}/ is {second.get(key)!r}",
            where,
            f"{first.get(key)!r}, as in {TRANSFORMER}/",
            DAMAGED,
        )
        for key in keys
        if first.get(key) != second.get(key)
    ]
    if problems:
        raise ConfigError(problems)


def _check_variant(
    index: Mapping[str, Any], transformer: Mapping[str, Any], vae: Mapping[str, Any], where: str
) -> None:
    problems = []
    kind, channels = index["_class_name"], vae["z_dim"]
    given = image_channels(channels, vae["scale_factor_temporal"]) if _takes_image_channels(index) else 0
    takes = channels + given
    if transformer["in_channels"] != takes:
        found = f"its transformer takes {transformer['in_channels']} channels"
        problems.append(Problem(found, where, allowed=f"{takes} channels in a {kind}: {SUPPORTED}"))
    if (transformer["out_channels"] or transformer["in_channels"]) != channels:
        found = f"its transformer gives {transformer['out_channels']} channels"
        problems.append(Problem(found, where, allowed=f"{channels}, as its VAE has: {SUPPORTED}"))
    if not _takes_image_channels(index) and transformer["image_dim"] is not None:
        found = "its transformer attends to an image's features, which its pipeline does not give it"
        problems.append(Problem(found, where, allowed=f"image_dim null, or a {IMAGE_PIPELINE}: {SUPPORTED}"))
    if problems:
        raise ConfigError(problems)


def _takes_image_channels(index: Mapping[str, Any]) -> bool:
    """Whether the network has given frames as channels beside the noise; one that keeps given frames clean has none."""
    return index["_class_name"] == IMAGE_PIPELINE and not index.get("expand_timesteps")
