"""LoRA files that are merged into a network's weights when these are read, in the formats that diffusers' pipelines load."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from torch import Tensor

from fastvideo_core.config.run import MergedLora
from fastvideo_core.contracts.roles import WeightSource
from fastvideo_diffusers.fingerprint import fingerprint
from fastvideo_diffusers.lora_file import LoraFile


class LoraWeights:
    """A WeightSource: the weights of another one with the products scale * B A of a LoRA file.

    Args:
        below: the other one.
        read: what the file holds for the network.
        file: how it counts.
        module: the name of the network that it is for.
        where: how errors name the place that gave the file.

    Attributes:
        fingerprint: tells the file's values and how they count from those of another one.
    """

    def __init__(self, below: WeightSource, read: LoraFile, file: MergedLora, *, module: str, where: str) -> None:
        self._below, self._module = below, module
        self._scales = {name: file.scale * scale for name, scale in read.scales.items()}
        self._tensors: Mapping[str, Tensor] = read.tensors
        values = fingerprint(read.path, where=where)
        self.fingerprint = hashlib.sha256(f"{values} {sorted(read.scales.items())}".encode()).hexdigest()[:16]

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
