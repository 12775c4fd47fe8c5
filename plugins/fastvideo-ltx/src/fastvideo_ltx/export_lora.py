"""A trained role's adapters alone, as `load_lora_weights` of the folder's pipeline reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
from torch import Tensor

from fastvideo_core.config.run import LoraConfig
from fastvideo_core.errors import CheckpointError, ConfigError, Problem
from fastvideo_core.weights.lora import without_adapter_name
from fastvideo_ltx.folder import TRANSFORMER
from fastvideo_ltx.generations import open_folder

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
        ConfigError: `out` is not empty, or the base is no LTX pipeline.
        CheckpointError: the adapters are not those of the base's transformer.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(Problem("is not an empty folder", where=str(out), fix="name a new folder"))
    if set(modules) != {TRANSFORMER}:
        found = f"holds the modules {', '.join(modules) or 'none'}"
        raise CheckpointError(Problem(found, where="export", allowed=TRANSFORMER))
    folder = open_folder(base_path, where="base path")
    layers = {without_adapter_name(name): tensor.contiguous() for name, tensor in modules[TRANSFORMER].items()}
    targets = sorted({name.partition(".lora_")[0] for name in layers})
    known = {name for name, _ in folder.generation.outline(base_path).named_modules()}
    if unknown := [name for name in targets if name not in known]:
        found = f"the transformer of {base_path} has no layer {', '.join(unknown[:3])}"
        raise CheckpointError(Problem(found, where="export", fix="name the pipeline that the role was trained from"))
    pipeline: Any = getattr(diffusers, folder.pipeline)
    pipeline.save_lora_weights(
        out,
        transformer_lora_layers=layers,
        weight_name=WEIGHTS,
        transformer_lora_adapter_metadata={
            "r": lora.rank,
            "lora_alpha": lora.scale * lora.rank,
            "target_modules": targets,
        },
    )
    return [f"load it on {base_path} with {folder.pipeline}.load_lora_weights({str(out)!r})"]
