"""A trained role's LoRA adapters alone, as `load_lora_weights` of its pipeline reads them."""

from __future__ import annotations

from pathlib import Path

import diffusers
from torch import Tensor

from fastvideo_core.config.run import LoraConfig
from fastvideo_diffusers.export_lora import write_lora
from fastvideo_wan.folder import open_folder
from fastvideo_wan.loading import outline_transformer
from fastvideo_wan.lora_formats import FORMATS
from fastvideo_wan.sparse import GATE


def export_lora(
    base_path: str, out: Path, adapters: dict[str, dict[str, Tensor]], *, lora: LoraConfig, format: str = "diffusers"
) -> list[str]:
    """See `fastvideo_diffusers.export_lora`."""
    folder = open_folder(base_path, where="base path")
    gated = any(f".{GATE}." in key for tensors in adapters.values() for key in tensors)
    networks = {name: outline_transformer(base_path, name=name, gates=gated) for name in folder.networks}
    known = {"pipeline": getattr(diffusers, folder.pipeline), "networks": networks, "formats": FORMATS}
    notes = ["plain diffusers attends densely, and leaves out the adapters of the gates"] if gated else []
    return notes + write_lora(base_path, out, adapters, lora=lora, format=format, **known)
