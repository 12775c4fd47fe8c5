"""Mochi's format on disk: the folder, or hub id, that diffusers' MochiPipeline loads."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from diffusers import AutoencoderKLMochi, MochiPipeline, MochiTransformer3DModel
from torch import nn

from fastvideo_core.errors import ConfigError, Problem, foreign_file

TRANSFORMER = "transformer"
"""The name of a role's only module, and of its folder."""


def check_folder(path: str, where: str = "path") -> Mapping[str, Any]:
    """The pipeline's index.

    Raises:
        ConfigError: the path holds no Mochi pipeline.
    """
    with _reading(path, where, "model_index.json"):
        index: Mapping[str, Any] = dict(MochiPipeline.load_config(path))
    if index.get("_class_name") != "MochiPipeline":
        found = f"holds a {index.get('_class_name')}"
        raise ConfigError(Problem(found, f"{where} ({path})", allowed="a folder or hub id of a MochiPipeline"))
    return index


def load(kind: Any, path: str, part: str, where: str = "path", **options: Any) -> Any:
    """A part of the pipeline through its own `from_pretrained`.

    Raises:
        ConfigError: it cannot be read.
    """
    # from_pretrained may draw initial values before it overwrites them
    with _reading(path, where, part), torch.random.fork_rng(devices=[]):
        return kind.from_pretrained(path, subfolder=part, **options)


def load_transformer(path: str, *, dtype: torch.dtype, where: str = "path") -> MochiTransformer3DModel:
    """The denoising network, on the CPU, a module of its own at every call; errors as `check_folder` and `load`."""
    check_folder(path, where)
    return load(MochiTransformer3DModel, path, TRANSFORMER, where, torch_dtype=dtype, use_safetensors=True).eval()


def load_vae(path: str, device: torch.device, where: str = "path") -> AutoencoderKLMochi:
    """The autoencoder, float32 and frozen; errors as `load`."""
    vae = load(AutoencoderKLMochi, path, "vae", where, torch_dtype=torch.float32, use_safetensors=True)
    return vae.to(device).eval().requires_grad_(False)


def outline(path: str, where: str = "path") -> dict[str, nn.Module]:
    """A role's networks on the meta device, for `check`: names and shapes from config files alone."""
    check_folder(path, where)
    with _reading(path, where, TRANSFORMER), torch.device("meta"):
        config = MochiTransformer3DModel.load_config(path, subfolder=TRANSFORMER)
        return {TRANSFORMER: MochiTransformer3DModel.from_config(config)}


def _reading(path: str, where: str, part: str) -> AbstractContextManager[None]:
    fix = "name a folder or hub id of a MochiPipeline, such as genmo/mochi-1-preview, or copy it again"
    return foreign_file(f"{where} ({path}/{part})", f"{part} of a pipeline", ConfigError, fix)
