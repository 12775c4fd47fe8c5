"""A trained role's LoRA adapters alone, as `load_lora_weights` of the folder's pipeline reads them."""

from __future__ import annotations

from pathlib import Path

import diffusers
from torch import Tensor

from fastvideo_core.config.run import LoraConfig
from fastvideo_diffusers import export_lora as shared
from fastvideo_ltx.generation import generation_of
from fastvideo_ltx.generations import open_folder


def export_lora(base_path: str, out: Path, modules: dict[str, dict[str, Tensor]], *, lora: LoraConfig) -> list[str]:
    """See `fastvideo_diffusers.export_lora`."""
    folder = open_folder(base_path, where="base path")
    pipeline, transformer = getattr(diffusers, folder.pipeline), generation_of(folder).outline(base_path)
    return shared.export_lora(base_path, out, modules, lora=lora, pipeline=pipeline, transformer=transformer)
