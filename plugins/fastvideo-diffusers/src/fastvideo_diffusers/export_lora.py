"""A trained role's LoRA adapters alone, as `load_lora_weights` of a diffusers pipeline and other programs read them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from fastvideo_core.config.run import LoraConfig
from fastvideo_core.errors import CheckpointError, ConfigError, Problem
from fastvideo_diffusers.export import FIX, check_modules
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_diffusers.lora_formats import DIFFUSERS, LoraFormat
from fastvideo_diffusers.pipeline_copy import not_empty

WEIGHTS = "pytorch_lora_weights.safetensors"
"""The file of the first network's adapters; that of another one is named after it."""


def write_lora(
    base_path: str,
    out: Path,
    modules: Mapping[str, Mapping[str, Tensor]],
    *,
    lora: LoraConfig,
    pipeline: Any,
    networks: Mapping[str, nn.Module],
    format: str = DIFFUSERS,
    formats: Mapping[str, LoraFormat] | None = None,
) -> list[str]:
    """Writes `pytorch_lora_weights.safetensors` into a folder, and a file for each further network that has adapters.

    Whatever the format, `load_lora_weights` of the pipeline reads them.

    Args:
        base_path: folder or hub id of the pipeline that the adapters fit.
        out: the new folder.
        modules: the adapters by module name and name, as in a checkpoint.
        lora: how they were trained; rank and alpha are stored with them.
        pipeline: the diffusers class of the base's pipeline.
        networks: the base's by module name, on meta; adapters may be on some of them only.
        format: `diffusers`, or the name of one of `formats`.
        formats: those of other programs that the family knows.

    Returns:
        notes for the user.

    Raises:
        ConfigError: `out` is not empty, there is no such format, or diffusers would not read these layers from it.
        CheckpointError: the adapters are not those of the base's networks.
    """
    out, known = Path(out), {**(formats or {})}
    if format not in (DIFFUSERS, *known):
        found, allowed = f"{pipeline.__name__} has no LoRA files of that format", ", ".join((DIFFUSERS, *known))
        raise ConfigError(Problem(found, f"--format {format}", allowed))
    if problems := not_empty(out):
        raise ConfigError(problems)
    adapted = {name: tensors for name, tensors in modules.items() if tensors}
    check_modules(adapted, {name: network for name, network in networks.items() if name in adapted} or networks)
    checked = {
        name: _layers(tensors, networks[name], f"the {name} of {base_path}") for name, tensors in adapted.items()
    }
    spelled = {}
    if format in known:
        for name, (layers, targets) in checked.items():
            pairs = {one: (layers[f"{one}.lora_A.weight"], layers[f"{one}.lora_B.weight"]) for one in targets}
            spelled[name] = known[format].spell(pairs, lora, pipeline=pipeline, where=f"--format {format}")
        out.mkdir(parents=True, exist_ok=True)
    notes = []
    for name, (layers, targets) in checked.items():
        further = name != TRANSFORMER
        file = f"pytorch_lora_weights_{name}.safetensors" if further else WEIGHTS
        if format in known:
            save_file(spelled[name], out / file, metadata={"format": "pt"})
        else:
            _save_as_diffusers(out, file, layers, targets, lora=lora, pipeline=pipeline)
        named = f", weight_name={file!r}" if len(networks) > 1 else ""
        named += f", load_into_{name}=True" if further else ""
        notes.append(f"load it on {base_path} with {pipeline.__name__}.load_lora_weights({str(out)!r}{named})")
    return notes


def _save_as_diffusers(
    out: Path, file: str, layers: Mapping[str, Tensor], targets: list[str], *, lora: LoraConfig, pipeline: Any
) -> None:
    pipeline.save_lora_weights(
        out,
        transformer_lora_layers=layers,
        weight_name=file,
        transformer_lora_adapter_metadata={
            "r": lora.rank,
            "lora_alpha": lora.scale * lora.rank,
            "target_modules": targets,
            "rank_pattern": {},  # diffusers 0.35 reads it without asking whether it is there
        },
    )


def _layers(tensors: Mapping[str, Tensor], network: nn.Module, what: str) -> tuple[dict[str, Tensor], list[str]]:
    """A network's adapters as other programs write them, without peft's name for the set, and the layers that have some."""
    layers = {name.replace(".default.", "."): tensor.contiguous() for name, tensor in tensors.items()}
    targets = sorted({name.partition(".lora_")[0] for name in layers})
    known = {name for name, _ in network.named_modules()}
    if unknown := [name for name in targets if name not in known]:
        found = f"{what} has no layer {', '.join(unknown[:3])}"
        raise CheckpointError(Problem(found, where="export", fix=FIX))
    return layers, targets
