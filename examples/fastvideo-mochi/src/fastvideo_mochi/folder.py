"""Mochi's format on disk: the folder, or hub id, that diffusers' MochiPipeline loads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusers import AutoencoderKLMochi, FlowMatchEulerDiscreteScheduler, MochiTransformer3DModel

from fastvideo_core.errors import ConfigError, Problem
from fastvideo_diffusers.folder import (
    TRANSFORMER,
    PipelineFolder,
    check_components,
    check_values,
    noise_axis,
    open_pipeline,
    read_config,
    whole_numbers,
)

SUPPORTED = "a MochiPipeline in diffusers format (for example genmo/mochi-1-preview)"
WEIGHTED = (TRANSFORMER, "vae", "text_encoder")
COMPONENTS = (*WEIGHTED, "tokenizer", "scheduler")
TEXT_LENGTH = 256
"""Tokens of a caption; the network is told by a mask which of them are padding."""


@dataclass(frozen=True, kw_only=True)
class MochiFolder(PipelineFolder):
    """A Mochi pipeline.

    Args:
        blanks_empty: whether an empty prompt is no token at all to the network.
    """

    blanks_empty: bool


def open_folder(path: str, *, where: str = "path") -> MochiFolder:
    """Reads a pipeline's configuration files.

    Raises:
        ConfigError: the path holds no Mochi pipeline, or an incomplete one.
    """

    def config(kind: Any, subfolder: str, where: str) -> dict[str, Any]:
        return read_config(kind, path, subfolder, supported=SUPPORTED, where=where)

    def read(index: Mapping[str, Any], where: str) -> MochiFolder:
        if index.get("_class_name") != "MochiPipeline":
            raise ConfigError(Problem(f"holds a {index.get('_class_name')}", where, allowed=SUPPORTED))
        check_components(path, COMPONENTS, WEIGHTED, where=where)
        transformer, vae = config(MochiTransformer3DModel, TRANSFORMER, where), config(AutoencoderKLMochi, "vae", where)
        scheduler = config(FlowMatchEulerDiscreteScheduler, "scheduler", where)
        numbers = whole_numbers(TRANSFORMER, transformer, "text_embed_dim") + whole_numbers(
            "vae", vae, "latent_channels"
        )
        check_values([*numbers, *noise_axis(scheduler)], where=where)
        channels = vae["latent_channels"]
        return MochiFolder(
            path=path,
            text_dim=transformer["text_embed_dim"],
            text_length=TEXT_LENGTH,
            latents_mean=tuple(vae["latents_mean"] or [0.0] * channels),
            latents_std=tuple(vae["latents_std"] or [1.0] * channels),
            scaling_factor=vae["scaling_factor"],
            temporal_factor=6,
            spatial_factor=8,
            scheduler=scheduler,
            blanks_empty=bool(index.get("force_zeros_for_empty_prompt")),
        )

    return open_pipeline(path, read, what="Mochi pipeline", supported=SUPPORTED, where=where)
