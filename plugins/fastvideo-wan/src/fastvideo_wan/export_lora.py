"""A trained role's LoRA adapters alone, as `WanPipeline.load_lora_weights` reads them."""

from __future__ import annotations

from pathlib import Path

from diffusers import WanPipeline
from torch import Tensor

from fastvideo_core.config.run import LoraConfig
from fastvideo_diffusers import export_lora as shared
from fastvideo_wan.loading import outline_transformer


def export_lora(base_path: str, out: Path, modules: dict[str, dict[str, Tensor]], *, lora: LoraConfig) -> list[str]:
    """See `fastvideo_diffusers.export_lora`."""
    transformer = outline_transformer(base_path)
    return shared.export_lora(base_path, out, modules, lora=lora, pipeline=WanPipeline, transformer=transformer)
