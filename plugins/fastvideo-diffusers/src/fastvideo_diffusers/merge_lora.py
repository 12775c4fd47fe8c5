"""LoRA files that are merged into a network's weights when these are read, in the formats that diffusers' pipelines load."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import diffusers
from diffusers.utils import convert_unet_state_dict_to_peft
from safetensors import safe_open
from torch import Tensor, nn

from fastvideo_core.config.run import MergedLora
from fastvideo_core.contracts.roles import WeightSource
from fastvideo_core.distributed import context
from fastvideo_core.errors import ConfigError, Problem, foreign_file
from fastvideo_diffusers.export_lora import WEIGHTS
from fastvideo_diffusers.fingerprint import fingerprint
from fastvideo_diffusers.folder import TRANSFORMER
from fastvideo_diffusers.hub import unreadable_pipeline
from fastvideo_diffusers.pipeline_files import component_config
from fastvideo_diffusers.quiet import no_progress_bars

logger = logging.getLogger(__name__)

ALLOWED = "a safetensors file, a folder that holds one, or one at the hub (org/name/file.safetensors)"
FIX = "take a LoRA that was trained on this model, or name its network as `module`"
_HUB_PARTS = 3  # org, name and at least a file
_PREFIX = f"{TRANSFORMER}."  # of the keys of whichever network
_SET = "merged"  # peft's name for the adapters


class LoraWeights:
    """A WeightSource: the weights of another one with the products scale * B A of a LoRA file.

    Args:
        below: the other one.
        file: which one, and how it counts.
        base_path: folder or hub id of the pipeline; its class reads the file's format.
        module: the name of the network that it is for.
        network: on meta; nothing else is done with it afterwards.
        where: how errors name the place that gave the file.

    Attributes:
        fingerprint: tells the file's values and how they count from those of another one.

    Raises:
        ConfigError: there is no such file, the pipeline cannot read it, or it does not fit the network.
    """

    def __init__(
        self,
        below: WeightSource,
        file: MergedLora,
        base_path: str,
        *,
        module: str,
        network: nn.Module,
        where: str,
    ) -> None:
        path = located(file.path, where=where)
        place = f"{where} ({path})"
        self._below, self._module = below, module
        with foreign_file(place, "LoRA file", ConfigError, FIX), no_progress_bars():
            lost = _lost_differences(path, place)
            index = component_config(diffusers.DiffusionPipeline, base_path, None)
            pipeline = _pipeline(index, base_path, where)
            tensors, metadata = pipeline.lora_state_dict(
                str(path.parent), weight_name=path.name, return_lora_metadata=True
            )
            if not any(".lora_A" in name for name in tensors):
                tensors = convert_unet_state_dict_to_peft(tensors)
            others = [name for name in tensors if not name.startswith(_PREFIX) and name.partition(".")[0] in index]
            own = {name.removeprefix(_PREFIX): one for name, one in tensors.items() if name not in others}
            _tell_rest(path, lost, others)
            _check_fit(own, network, place)
            network.load_lora_adapter(  # type: ignore[operator]  # of PeftAdapterMixin
                {f"{_PREFIX}{name}": one for name, one in own.items()},
                adapter_name=_SET,
                metadata=metadata,
                low_cpu_mem_usage=True,
            )
        scales = {name: part.scaling[_SET] for name, part in network.named_modules() if hasattr(part, "scaling")}
        self._scales = {name: file.scale * scale for name, scale in scales.items()}
        self._tensors: Mapping[str, Tensor] = own
        values = fingerprint(path, where=where)
        self.fingerprint = hashlib.sha256(f"{values} {sorted(scales.items())}".encode()).hexdigest()[:16]

    def tensor_names(self, module: str) -> Sequence[str]:
        """Those of the weights below."""
        return self._below.tensor_names(module)

    def read(self, module: str, name: str, rows: slice | None = None) -> Tensor:
        """A weight or a bias, or some of its rows; float32 where something is added to it."""
        stored = self._below.read(module, name, rows)
        layer, _, kind = name.rpartition(".")
        up = self._tensors.get(f"{layer}.lora_B.{kind}")
        if module != self._module or up is None:
            return stored
        up = up[rows or slice(None)].float()
        added: Tensor = up if kind == "bias" else up @ self._tensors[f"{layer}.lora_A.weight"].float()
        scaled: Tensor = added * self._scales[layer]
        return stored.float() + scaled.to(stored.device)


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
            _warn(f"{path}: {len(names)} tensors are not merged, they are of {what}: {', '.join(names[:3])}")


@lru_cache
def _warn(text: str) -> None:
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
