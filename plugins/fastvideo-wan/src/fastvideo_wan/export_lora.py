"""A trained role's adapters alone, as `WanPipeline.load_lora_weights` reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import WanPipeline
from torch import Tensor

from fastvideo_core.config.run import LoraConfig
from fastvideo_core.errors import CheckpointError, ConfigError, Problem
from fastvideo_core.weights.lora import without_adapter_name
from fastvideo_wan.folder import TRANSFORMER
from fastvideo_wan.loading import outline_transformer

WEIGHTS = "pytorch_lora_weights.safetensors"


def export_lora(base_path: str, out: Path, modules: dict[str, dict[str, Tensor]], *, lora: LoraConfig) -> list[str]:
    """Writes `pytorch_lora_weights.safetensors` into a folder.

    Args:
        base_path: folder or hub id of the pipeline that the adapters fit.
        out: the new folder.
        modules: the adapters by module name and name, as in a checkpoint.
        lora: how they were trained; rank and alpha are stored with them.

    Returns:
        notes for the user.

    Raises:
        ConfigError: `out` is not empty.
        CheckpointError: the adapters are not those of a Wan transformer.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(Problem("is not an empty folder", where=str(out), fix="name a new folder"))
    if set(modules) != {TRANSFORMER}:
        found = f"holds the modules {', '.join(modules) or 'none'}"
        raise CheckpointError(Problem(found, where="export", allowed=TRANSFORMER))
    layers = {without_adapter_name(name): tensor.contiguous() for name, tensor in modules[TRANSFORMER].items()}
    targets = sorted({name.partition(".lora_")[0] for name in layers})
    known = {name for name, _ in outline_transformer(base_path).named_modules()}
    if unknown := [name for name in targets if name not in known]:
        found = f"the transformer of {base_path} has no layer {', '.join(unknown[:3])}"
        raise CheckpointError(Problem(found, where="export", fix="name the pipeline that the role was trained from"))
    WanPipeline.save_lora_weights(
        out,
        transformer_lora_layers=layers,
        weight_name=WEIGHTS,
        transformer_lora_adapter_metadata=_metadata(lora, targets),
    )
    return [f"load it on {base_path} with WanPipeline.load_lora_weights({str(out)!r})"]


def _metadata(lora: LoraConfig, targets: list[str]) -> dict[str, Any]:
    return {"r": lora.rank, "lora_alpha": lora.scale * lora.rank, "target_modules": targets}
