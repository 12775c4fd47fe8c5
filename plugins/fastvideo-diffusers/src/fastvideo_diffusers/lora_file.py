"""LoRA files in whatever format the class of a diffusers pipeline reads: found, read, and checked against a network."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.utils import convert_unet_state_dict_to_peft, is_peft_available
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from fastvideo_core.distributed import context
from fastvideo_core.errors import ConfigError, Problem, foreign_file
from fastvideo_diffusers.export_lora import WEIGHTS
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_diffusers.hub import unreadable_pipeline
from fastvideo_diffusers.lora_formats import LoraFormat, some
from fastvideo_diffusers.pipeline_files import component_config
from fastvideo_diffusers.quiet import no_progress_bars

logger = logging.getLogger(__name__)

ALLOWED = "a safetensors file, a folder that holds one, or one at the hub (org/name/file.safetensors)"
FIX = "take a LoRA that was trained on this model, or name its network as `module`"
_HUB_PARTS = 3  # org, name and at least a file
_PREFIX = f"{TRANSFORMER}."  # of the keys of whichever network
_SET = "merged"  # peft's name for the adapters


@dataclass(frozen=True)
class LoraFile:
    """What a LoRA file holds for one network.

    Args:
        path: where it lies.
        tensors: A [rank, in], B [out, rank] and biases [out] by name: `layer.lora_A.weight`, `.lora_B.weight`, `.lora_B.bias`.
        scales: the factor of each layer's product B A and of its bias.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    scales: Mapping[str, float]


def read_lora_file(
    file: str,
    base_path: str,
    *,
    network: nn.Module,
    formats: Mapping[str, LoraFormat],
    where: str,
    as_trained: bool = False,
) -> LoraFile:
    """Reads a file as the pipeline's class reads it.

    Args:
        file: a path, a folder that holds one, or one at the hub.
        base_path: folder or hub id of the pipeline; its class reads the file's format.
        network: that it is for, on meta; nothing else is done with it afterwards.
        formats: other programs' that the family knows, for messages.
        where: how errors name the place that gave the file.
        as_trained: A and B as the file holds them; otherwise a format's own alpha / rank may be in them already, not in `scales`.

    Raises:
        ConfigError: there is no such file, the pipeline cannot read it, or it does not fit the network.
    """
    if not is_peft_available():
        found, fix = "peft is not installed, which LoRA files need", "pip install 'fastvideo-core[lora]'"
        raise ConfigError(Problem(found, where, fix=fix))
    path = located(file, where=where)
    place = f"{where} ({path})"
    with foreign_file(place, "LoRA file", ConfigError, FIX), no_progress_bars():
        lost = _lost_differences(path, place)
        index = component_config(diffusers.DiffusionPipeline, base_path, None)
        pipeline = _pipeline(index, base_path, where)
        _check_whole(path, network, formats, place)
        read, metadata = pipeline.lora_state_dict(str(path.parent), weight_name=path.name, return_lora_metadata=True)
        tensors, others = _of_network(read, index)
        _tell_rest(path, lost, others)
        _check_fit(tensors, network, place)
        network.load_lora_adapter(  # type: ignore[operator]  # of PeftAdapterMixin
            {f"{_PREFIX}{name}": one for name, one in tensors.items()},
            adapter_name=_SET,
            metadata=metadata,
            low_cpu_mem_usage=True,
        )
        scales = {name: part.scaling[_SET] for name, part in network.named_modules() if hasattr(part, "scaling")}
        if as_trained:
            plain, ones = _without_alphas(load_file(path))
            tensors, _ = _of_network(pipeline.lora_state_dict(plain), index)
            probe, _ = _of_network(pipeline.lora_state_dict(ones), index)
            scales = {layer: scale * _product(probe, layer) for layer, scale in scales.items()}
    return LoraFile(path, tensors, scales)


def located(path: str, *, where: str) -> Path:
    """The file that a path means; one at the hub is downloaded.

    Raises:
        ConfigError: there is none, or a folder holds several.
    """
    found = Path(path)
    if found.is_dir():
        files = sorted(found.glob("[!.]*.safetensors"))
        files = [file for file in files if file.name == WEIGHTS] or files
        if len(files) != 1:
            held = f"holds {', '.join(file.name for file in files[:5])}" if files else "holds no safetensors file"
            raise ConfigError(Problem(f"{path} {held}", where, allowed=ALLOWED, fix="name the file"))
        return files[0]
    parts = path.split("/")
    if found.exists():
        return found
    if len(parts) < _HUB_PARTS or not path.endswith(".safetensors") or Path(parts[0]).exists() or not parts[0]:
        raise ConfigError(
            Problem(f"there is no file {path}", where, allowed=ALLOWED, fix="check the path, or put the file back")
        )
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download("/".join(parts[:2]), "/".join(parts[2:])))
    except (OSError, ValueError) as error:
        raise unreadable_pipeline(path, path, error, where=where, allowed=ALLOWED) from error


def _of_network(tensors: Mapping[str, Tensor], index: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """A network's own tensors by the names of its layers, and the names of those of the index's other components."""
    if not any(".lora_A" in name for name in tensors):
        tensors = convert_unet_state_dict_to_peft(tensors)
    others = [name for name in tensors if not name.startswith(_PREFIX) and name.partition(".")[0] in index]
    return {name.removeprefix(_PREFIX): one for name, one in tensors.items() if name not in others}, others


def _without_alphas(stored: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A file's tensors with alphas of rank, a factor of 1, and with its own alphas but ones [rank, 1] and [1, rank] as A and B.

    Out of the latter a converter that multiplies alpha / rank into A and B makes that factor.
    """
    plain, ones = dict(stored), dict(stored)
    for stem in [key.removesuffix(".alpha") for key in stored if key.endswith(".alpha")]:
        for down, up in (("lora_down", "lora_up"), ("lora_A", "lora_B")):
            if (one := stored.get(f"{stem}.{down}.weight")) is not None:
                rank = one.shape[0]
                plain[f"{stem}.alpha"] = torch.tensor(float(rank))
                ones[f"{stem}.{down}.weight"] = torch.ones(rank, 1, dtype=torch.float64)
                ones[f"{stem}.{up}.weight"] = torch.ones(1, rank, dtype=torch.float64)
    return plain, ones


def _product(probe: Mapping[str, Tensor], layer: str) -> float:
    """What a converter has multiplied into the ones of a layer; 1 where it was given none."""
    down, up = (probe[f"{layer}.lora_{part}.weight"] for part in "AB")
    return float(down[0, 0] * up[0, 0]) if down.dtype == torch.float64 else 1.0


def _check_whole(path: Path, network: nn.Module, formats: Mapping[str, LoraFormat], place: str) -> None:
    """Every block has all layers that diffusers wants of the file's format: it ends with a bare KeyError where one lacks."""
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
    layers = [name for name, part in network.named_modules() if isinstance(part, nn.Linear)]
    for name, one in formats.items():
        present = {layer for layer in layers if f"{one.prefix}{one.name(layer)}.{one.parts[0]}.weight" in names}
        if absent := one.lacking(present):
            found = (
                f"is a {name} file without {some(absent)}: diffusers reads it where each block has all of its layers"
            )
            fix = "convert it to ComfyUI's names, of which diffusers reads any"
            raise ConfigError(Problem(found, place, fix=fix))


def _pipeline(index: Mapping[str, Any], base_path: str, where: str) -> Any:
    """The diffusers class of the pipeline's index, which knows the formats of its LoRA files."""
    name = index.get("_class_name")
    pipeline = getattr(diffusers, str(name), None)
    if not hasattr(pipeline, "lora_state_dict"):
        raise ConfigError(Problem(f"{base_path} is a {name}, for which diffusers reads no LoRA files", where))
    return pipeline


def _lost_differences(path: Path, place: str) -> list[str]:
    """The keys that diffusers leaves out without a word, where their values are not all zero."""
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        dropped = [n for n in names if n.endswith((".diff", ".diff_b")) and ("norm" in n or n.endswith(".diff"))]
        lost = [name for name in dropped if not name.endswith("head.head.diff") and file.get_tensor(name).any()]
    if any("dora_scale" in name for name in names):
        raise ConfigError(Problem("is a DoRA, which diffusers cannot read", place, allowed="a LoRA"))
    return lost


def _tell_rest(path: Path, differences: list[str], others: list[str]) -> None:
    """What of a file is not merged, as no role has it, or diffusers reads none of its kind."""
    for names, what in (
        (differences, "whole differences, which diffusers does not read"),
        (others, "other components"),
    ):
        if names:
            tell_once(f"{path}: {len(names)} tensors are not merged, they are of {what}: {', '.join(names[:3])}")


@lru_cache
def tell_once(text: str) -> None:
    """Said once, although a file is opened to be checked, and again to be merged."""
    if context.is_main_process():
        logger.warning(text)


def _check_fit(tensors: Mapping[str, Tensor], network: nn.Module, place: str) -> None:
    """Every tensor is one of a pair A [rank, in] and B [out, rank], or a bias [out], of a linear layer [out, in]."""
    layers: dict[str, dict[str, list[int]]] = {}
    unknown = []
    for name, tensor in tensors.items():
        layer, mark, kind = name.rpartition(".lora_")
        if kind in ("A.weight", "B.weight", "B.bias") and mark:
            layers.setdefault(layer, {})[kind] = list(tensor.shape)
        else:
            unknown.append(name)
    linear = {name: part for name, part in network.named_modules() if isinstance(part, nn.Linear)}
    absent = [layer for layer in layers if layer not in linear]
    misfits = []
    for layer, shapes in layers.items():
        if (part := linear.get(layer)) is not None:
            rank = shapes.get("A.weight", [0])[0]
            wanted = {"A.weight": [rank, part.in_features], "B.weight": [part.out_features, rank]}
            wanted |= {"B.bias": [part.out_features]} if "B.bias" in shapes and part.bias is not None else {}
            if shapes != wanted:
                misfits.append(f"{layer} {shapes}, on a weight {list(part.weight.shape)}")
    told = (
        (unknown, "keys are of no LoRA that diffusers reads"),
        (absent, "layers are no linear layers of the network"),
        (misfits, "layers have other shapes"),
    )
    problems = [
        Problem(f"{len(names)} {text}: {'; '.join(names[:3])}{' ...' if len(names) > 3 else ''}", place, fix=FIX)
        for names, text in told
        if names
    ]
    if not layers and not problems:
        problems = [Problem("holds nothing for the network", place, fix=FIX)]
    if problems:
        raise ConfigError(problems)
