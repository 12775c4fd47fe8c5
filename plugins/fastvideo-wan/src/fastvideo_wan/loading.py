"""Weights of a Wan pipeline, through diffusers' and transformers' own loading code."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel

from fastvideo_core.errors import ConfigError
from fastvideo_diffusers import loading
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_diffusers.safetensors_weights import SafetensorsWeights
from fastvideo_wan.network import keep_time_embedder_in_float32
from fastvideo_wan.sparse import GATE, GatedTransformer


def load_transformer(
    path: str, *, dtype: torch.dtype, device: torch.device, where: str = "path", name: str = TRANSFORMER
) -> WanTransformer3DModel:
    """A denoising network, in eval mode, a module of its own at every call.

    With bfloat16, the modules that diffusers lists in `_keep_in_fp32_modules` (time embedder, modulation tables, norms)
    stay in float32.

    Raises:
        ConfigError: the weights cannot be read, or do not fit the configuration.
    """
    transformer = loading.load_model(
        transformer_class(path, name, where=where), path, name, dtype=dtype, device=device, where=where
    )
    keep_time_embedder_in_float32(transformer)
    return transformer


def meta_transformer(
    path: str, *, dtype: torch.dtype, where: str = "path", name: str = TRANSFORMER
) -> WanTransformer3DModel:
    """A denoising network as `load_transformer` gives it, but with its parameters on meta; buffers hold their values.

    Raises:
        ConfigError: the configuration cannot be read.
    """
    transformer = loading.meta_model(transformer_class(path, name, where=where), path, name, dtype=dtype, where=where)
    keep_time_embedder_in_float32(transformer)
    return transformer


def outline_transformer(
    path: str, *, where: str = "path", name: str = TRANSFORMER, gates: bool = False
) -> WanTransformer3DModel:
    """A denoising network on the meta device: names, shapes and architecture alone; with `gates`, whatever the folder has.

    Raises:
        ConfigError: the configuration cannot be read.
    """
    kind = GatedTransformer if gates else transformer_class(path, name, where=where)
    return loading.outline_model(kind, path, name, where=where)


def transformer_class(path: str, name: str, *, where: str) -> Any:
    """The class that the stored weights are of: those with gates are known by their headers."""
    folder = loading.component_folder(path, name, where=where, download=False)
    stored: Sequence[str] = ()
    with suppress(ConfigError):  # what is wrong with them is said by who reads them
        stored = SafetensorsWeights({"": folder}, where=where).tensor_names("") if folder else ()
    return GatedTransformer if any(f".{GATE}." in key for key in stored) else WanTransformer3DModel


def load_vae(path: str, *, device: torch.device, where: str = "path") -> AutoencoderKLWan:
    """The autoencoder, float32, frozen, in eval mode.

    Raises:
        ConfigError: as `load_transformer`.
    """
    return loading.load_frozen(AutoencoderKLWan, path, "vae", device=device, where=where)
