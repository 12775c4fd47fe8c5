"""A trained role's LoRA adapters alone, as `load_lora_weights` of the folder's pipeline reads them."""

from __future__ import annotations

from pathlib import Path

import diffusers
from torch import Tensor

from fastvideo_core.config.run import LoraConfig
from fastvideo_diffusers.export_lora import write_lora
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_ltx.generation import generation_of
from fastvideo_ltx.generations import open_folder


def export_lora(base_path: str, out: Path, adapters: dict[str, dict[str, Tensor]], *, lora: LoraConfig) -> list[str]:
    """See `fastvideo_diffusers.export_lora`."""
    folder = open_folder(base_path, where="base path")
    pipeline, networks = getattr(diffusers, folder.pipeline), {TRANSFORMER: generation_of(folder).outline(base_path)}
    return write_lora(base_path, out, adapters, lora=lora, pipeline=pipeline, networks=networks)
