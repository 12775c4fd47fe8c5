"""A trained role's LoRA adapters alone, as `load_lora_weights` of a diffusers pipeline reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fastvideo_core.config.run import LoraConfig
from fastvideo_core.errors import CheckpointError, ConfigError, Problem
from fastvideo_diffusers.export import FIX, only_transformer
from fastvideo_diffusers.pipeline_copy import not_empty

WEIGHTS = "pytorch_lora_weights.safetensors"


def write_lora(
    base_path: str,
    out: Path,
    modules: Mapping[str, Mapping[str, Tensor]],
    *,
    lora: LoraConfig,
    pipeline: Any,
    transformer: nn.Module,
) -> list[str]:
    """Writes `pytorch_lora_weights.safetensors` into a folder.

    Args:
        base_path: folder or hub id of the pipeline that the adapters fit.
        out: the new folder.
        modules: the adapters by module name and name, as in a checkpoint.
        lora: how they were trained; rank and alpha are stored with them.
        pipeline: the diffusers class of the base's pipeline.
        transformer: the base's, on meta.

    Returns:
        notes for the user.

    Raises:
        ConfigError: `out` is not empty.
        CheckpointError: the adapters are not those of the base's transformer.
    """
    out = Path(out)
    if problems := not_empty(out):
        raise ConfigError(problems)
    # as other programs write them: without peft's name for the set of adapters
    layers = {name.replace(".default.", "."): tensor.contiguous() for name, tensor in only_transformer(modules).items()}
    targets = sorted({name.partition(".lora_")[0] for name in layers})
    known = {name for name, _ in transformer.named_modules()}
    if unknown := [name for name in targets if name not in known]:
        found = f"the transformer of {base_path} has no layer {', '.join(unknown[:3])}"
        raise CheckpointError(Problem(found, where="export", fix=FIX))
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
    return [f"load it on {base_path} with {pipeline.__name__}.load_lora_weights({str(out)!r})"]
