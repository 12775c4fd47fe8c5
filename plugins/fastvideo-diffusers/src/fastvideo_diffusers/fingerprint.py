"""What tells the stored weights of one encoder from those of another."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch

from fastvideo_diffusers.safetensors_weights import SafetensorsWeights

_VALUES = 16
"""Read of every tensor: fine-tuning moves them all, and an encoder of many gigabytes is compared in seconds."""


def fingerprint(folder: Path, *, where: str, wanted: Callable[[str], bool] | None = None) -> str:
    """16 hexadecimal digits over the size of every tensor and 16 values spread over it, rounded to bfloat16.

    The same for a copy of the weights in another folder, divided into other files, under other names, or in bfloat16.

    Args:
        folder: safetensors files, or one such file, as diffusers and transformers write them.
        where: how errors name the place that gave the path.
        wanted: which tensors count, by name; None is all.

    Raises:
        ConfigError: the folder holds no such files, or damaged ones.
    """
    weights = SafetensorsWeights({"": folder}, where=where)
    tensors = set()
    for name in filter(wanted, weights.tensor_names("")):
        flat = weights.read("", name).reshape(-1)  # mapped, not read
        values = flat[:: max(1, flat.numel() // _VALUES)][:_VALUES].to(torch.bfloat16).contiguous()
        tensors.add(hashlib.sha256(f"{flat.numel()}".encode() + values.view(torch.uint8).numpy().tobytes()).digest())
    return hashlib.sha256(b"".join(sorted(tensors))).hexdigest()[:16]
