"""Mochi's format on disk: the folder, or hub id, that diffusers' MochiPipeline loads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderKLMochi, MochiPipeline, MochiTransformer3DModel
from torch import nn

from fastvideo_core.errors import ConfigError, Problem

TRANSFORMER = "transformer"
"""The name of a role's only module, and of its folder."""


def check_folder(path: str, where: str = "path") -> Mapping[str, Any]:
    """The pipeline's index.

    Raises:
        ConfigError: the path holds no Mochi pipeline.
    """
    try:
        index: Mapping[str, Any] = MochiPipeline.load_config(path)
    except (OSError, ValueError) as error:
        raise _unreadable(path, where, "model_index.json", error) from error
    if index.get("_class_name") != "MochiPipeline":
        found = f"holds a {index.get('_class_name')}"
        raise ConfigError(Problem(found, f"{where} ({path})", allowed="a folder or hub id of a MochiPipeline"))
    return index


def load(kind: Any, path: str, part: str, where: str = "path", **options: Any) -> Any:
    """A part of the pipeline through its own `from_pretrained`.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        with torch.random.fork_rng(devices=[]):  # from_pretrained may draw initial values before it overwrites them
            return kind.from_pretrained(path, subfolder=part, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise _unreadable(path, where, f"{part}/", error) from error


def load_transformer(path: str, *, dtype: torch.dtype, where: str = "path") -> MochiTransformer3DModel:
    """The denoising network, on the CPU, a module of its own at every call; errors as `check_folder` and `load`."""
    check_folder(path, where)
    return load(MochiTransformer3DModel, path, TRANSFORMER, where, torch_dtype=dtype).eval()


def load_vae(path: str, device: torch.device, where: str = "path") -> AutoencoderKLMochi:
    """The autoencoder, float32 and frozen; errors as `load`."""
    vae = load(AutoencoderKLMochi, path, "vae", where, torch_dtype=torch.float32)
    return vae.to(device).eval().requires_grad_(False)


def outline(path: str) -> dict[str, nn.Module]:
    """A role's networks on the meta device, for `check`: names and shapes from config files alone."""
    check_folder(path)
    config = MochiTransformer3DModel.load_config(path, subfolder=TRANSFORMER)
    with torch.device("meta"):
        return {TRANSFORMER: MochiTransformer3DModel.from_config(config)}


def _unreadable(path: str, where: str, part: str, error: Exception) -> ConfigError:
    why = (str(error).strip() or type(error).__name__).splitlines()[0]
    allowed = "a folder or hub id of a MochiPipeline, such as genmo/mochi-1-preview"
    return ConfigError(Problem(f"cannot read {part}: {why}", f"{where} ({path})", allowed=allowed))
