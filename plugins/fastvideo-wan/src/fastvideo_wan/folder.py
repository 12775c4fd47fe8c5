"""Which pipelines this package can use, and what their configuration files say: no weights are read here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanTransformer3DModel
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from fastvideo_core.errors import ConfigError, Problem
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

SUPPORTED = "Wan 2.1 text-to-video in diffusers format (for example Wan-AI/Wan2.1-T2V-1.3B-Diffusers)"
COMPONENTS = (TRANSFORMER, "vae", "text_encoder", "tokenizer", "scheduler")
WEIGHTED = (TRANSFORMER, "vae", "text_encoder")
LATENT_CHANNELS = 16
TEXT_LENGTH = 512
"""Tokens that Wan's networks attend to. They have no text mask, so that the zeros behind a short caption count. A pipeline whose
tokenizer takes fewer (its model_max_length) is one for so many."""


@dataclass(frozen=True, kw_only=True)
class WanFolder(PipelineFolder):
    """A Wan 2.1 text-to-video pipeline; `text_length` is 512, or the tokenizer's limit below it.

    Args:
        patch_size: (frames, height, width) of latents that become one token.
    """

    patch_size: tuple[int, int, int]

    @property
    def latent_space(self) -> dict[str, object]:
        return super().latent_space | {"patch_size": self.patch_size}


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

    _check_index(index, where)
    check_components(path, COMPONENTS, WEIGHTED, where=where)
    transformer, vae = config(WanTransformer3DModel, TRANSFORMER), config(AutoencoderKLWan, "vae")
    scheduler = config(FlowMatchEulerDiscreteScheduler, "scheduler")
    statistics = f"{LATENT_CHANNELS} numbers", number_list((int, float), LATENT_CHANNELS)
    check_values(
        [
            (TRANSFORMER, transformer, "patch_size", "3 whole numbers", number_list(int, 3)),
            *whole_numbers(TRANSFORMER, transformer, "text_dim"),
            ("vae", vae, "latents_mean", *statistics),
            ("vae", vae, "latents_std", *statistics),
            *whole_numbers("vae", vae, "scale_factor_temporal", "scale_factor_spatial"),
            *noise_axis(scheduler),
        ],
        where=where,
    )
    _check_variant(transformer, vae, where)
    return WanFolder(
        path=path,
        text_dim=int(transformer["text_dim"]),
        text_length=_text_length(path),
        patch_size=tuple(transformer["patch_size"]),
        latents_mean=tuple(vae["latents_mean"]),
        latents_std=tuple(vae["latents_std"]),
        temporal_factor=int(vae["scale_factor_temporal"]),
        spatial_factor=int(vae["scale_factor_spatial"]),
        scheduler=scheduler,
    )


def _text_length(path: str) -> int:
    limit = get_tokenizer_config(path, subfolder="tokenizer").get("model_max_length")
    return min(TEXT_LENGTH, int(limit)) if isinstance(limit, int | float) and limit > 0 else TEXT_LENGTH


def _check_index(index: Mapping[str, Any], where: str) -> None:
    problems = []
    if index.get("_class_name") != "WanPipeline":
        problems.append(Problem(f"is a {index.get('_class_name')}", where, allowed=f"a WanPipeline: {SUPPORTED}"))
    if (index.get("transformer_2") or [None])[0] is not None or index.get("boundary_ratio") is not None:
        problems.append(Problem("has two transformers (Wan 2.2 A14B), not supported", where, allowed=SUPPORTED))
    if index.get("expand_timesteps"):
        problems.append(Problem("is a Wan 2.2 TI2V pipeline, not supported", where, allowed=SUPPORTED))
    if problems:
        raise ConfigError(problems)


def _check_variant(transformer: Mapping[str, Any], vae: Mapping[str, Any], where: str) -> None:
    problems = []
    if transformer["in_channels"] != LATENT_CHANNELS or transformer["image_dim"] is not None:
        problems.append(
            Problem(
                f"its transformer takes {transformer['in_channels']} channels (image-to-video or another variant)",
                where,
                allowed=f"{LATENT_CHANNELS} channels and no image embedding: {SUPPORTED}",
            )
        )
    if vae["z_dim"] != LATENT_CHANNELS:
        problems.append(
            Problem(f"its VAE has {vae['z_dim']} channels", where, allowed=f"{LATENT_CHANNELS}: {SUPPORTED}")
        )
    if problems:
        raise ConfigError(problems)
