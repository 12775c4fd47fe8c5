"""Weights of a Wan pipeline, through diffusers' and transformers' own loading code."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel

from fastvideo_diffusers import loading
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_wan.network import keep_time_embedder_in_float32


def load_transformer(
    path: str, *, dtype: torch.dtype, device: torch.device, where: str = "path", name: str = TRANSFORMER
) -> WanTransformer3DModel:
    """A denoising network, in eval mode, a module of its own at every call.

    With bfloat16, the modules that diffusers lists in `_keep_in_fp32_modules` (time embedder, modulation tables, norms)
    stay in float32.

    Raises:
        ConfigError: the weights cannot be read, or do not fit the configuration.
    """
    transformer = loading.load_model(WanTransformer3DModel, path, name, dtype=dtype, device=device, where=where)
    keep_time_embedder_in_float32(transformer)
    return transformer


def meta_transformer(
    path: str, *, dtype: torch.dtype, where: str = "path", name: str = TRANSFORMER
) -> WanTransformer3DModel:
    """A denoising network as `load_transformer` gives it, but with its parameters on meta; buffers hold their values.

    Raises:
        ConfigError: the configuration cannot be read.
    """
    transformer = loading.meta_model(WanTransformer3DModel, path, name, dtype=dtype, where=where)
    keep_time_embedder_in_float32(transformer)
    return transformer


def outline_transformer(path: str, *, where: str = "path", name: str = TRANSFORMER) -> WanTransformer3DModel:
    """A denoising network on the meta device: names, shapes and architecture without weights.

    Raises:
        ConfigError: the configuration cannot be read.
    """
    return loading.outline_model(WanTransformer3DModel, path, name, where=where)


def load_vae(path: str, *, device: torch.device, where: str = "path") -> AutoencoderKLWan:
    """The autoencoder, float32, frozen, in eval mode.

    Raises:
        ConfigError: as `load_transformer`.
    """
    return loading.load_frozen(AutoencoderKLWan, path, "vae", device=device, where=where)
