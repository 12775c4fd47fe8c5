"""LoRA files of random numbers, in every spelling that diffusers reads: for tests that merge them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

WAN_NAMES = {
    "attn1.to_q": "self_attn.q", "attn1.to_k": "self_attn.k", "attn1.to_v": "self_attn.v", "attn1.to_out.0": "self_attn.o",
    "attn2.to_q": "cross_attn.q", "attn2.to_k": "cross_attn.k", "attn2.to_v": "cross_attn.v",
    "attn2.to_out.0": "cross_attn.o", "ffn.net.0.proj": "ffn.0", "ffn.net.2": "ffn.2",
}  # fmt: skip
"""Layers of Wan's blocks by diffusers' names: by those of the original model, which ComfyUI and musubi write."""


def pairs(network: nn.Module, ends: Sequence[str], *, rank: int, seed: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    """A [rank, in] and B [out, rank] by layer, for the layers whose names end so."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    layers = {name: part for name, part in network.named_modules() if isinstance(part, nn.Linear)}
    chosen = {name: part for name, part in layers.items() if f".{name}".endswith(tuple(f".{end}" for end in ends))}
    return {name: (normal(rank, part.in_features), normal(part.out_features, rank)) for name, part in chosen.items()}


def write_diffusers(path: Path, found: Mapping[str, tuple[Tensor, Tensor]], *, alpha: float, **metadata: Any) -> Path:
    """As diffusers writes it: alpha is in the file's metadata."""
    import diffusers

    layers = {
        f"{name}.lora_{part}.weight": one for name, pair in found.items() for part, one in zip("AB", pair, strict=True)
    }
    rank = next(iter(found.values()))[0].shape[0]
    metadata = {"r": rank, "lora_alpha": alpha, "target_modules": sorted(found), "rank_pattern": {}, **metadata}
    diffusers.WanPipeline.save_lora_weights(
        path.parent, transformer_lora_layers=layers, weight_name=path.name, transformer_lora_adapter_metadata=metadata
    )
    return path


def write_comfyui(path: Path, found: Mapping[str, tuple[Tensor, Tensor]], *, alpha: float) -> Path:
    """Wan's original names, and an alpha beside each pair."""
    return _write_original(path, found, alpha, "diffusion_model.", lambda name: name)


def write_musubi(path: Path, found: Mapping[str, tuple[Tensor, Tensor]], *, alpha: float) -> Path:
    """The same in kohya's spelling."""
    return _write_original(path, found, alpha, "lora_unet_", lambda name: name.replace(".", "_"))


def _write_original(path: Path, found: Any, alpha: float, prefix: str, spelled: Any) -> Path:
    tensors = {}
    for name, (down, up) in found.items():
        block, _, layer = name.removeprefix("blocks.").partition(".")
        key = prefix + spelled(f"blocks.{block}.{WAN_NAMES[layer]}")
        tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(alpha)}
    save_file(tensors, path)
    return path


def write_unscaled(
    path: Path, found: Mapping[str, tuple[Tensor, Tensor]], *, prefix: str, parts: Sequence[str] = ("lora_A", "lora_B")
) -> Path:
    """With a prefix and no alpha, as LTX's own LoRA files are; or with other names for A and B."""
    tensors = {
        f"{prefix}{name}.{part}.weight": one
        for name, pair in found.items()
        for part, one in zip(parts, pair, strict=True)
    }
    save_file(tensors, path)
    return path
