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


def export_lora(
    base_path: str, out: Path, adapters: dict[str, dict[str, Tensor]], *, lora: LoraConfig, format: str = "diffusers"
) -> list[str]:
    """See `fastvideo_diffusers.export_lora`."""
    folder = open_folder(base_path, where="base path")
    generation = generation_of(folder)
    known = {"pipeline": getattr(diffusers, folder.pipeline), "formats": generation.lora_formats}
    networks = {TRANSFORMER: generation.outline(base_path)}
    return write_lora(base_path, out, adapters, lora=lora, format=format, networks=networks, **known)
