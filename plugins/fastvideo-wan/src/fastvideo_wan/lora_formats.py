"""How programs other than diffusers name the layers of Wan's networks in LoRA files."""

from __future__ import annotations

from collections.abc import Mapping

from fastvideo_diffusers.lora_formats import LoraFormat

_BLOCK: Mapping[str, str] = {
    "attn1.to_q": "self_attn.q",
    "attn1.to_k": "self_attn.k",
    "attn1.to_v": "self_attn.v",
    "attn1.to_out.0": "self_attn.o",
    "attn2.to_q": "cross_attn.q",
    "attn2.to_k": "cross_attn.k",
    "attn2.to_v": "cross_attn.v",
    "attn2.to_out.0": "cross_attn.o",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
}
"""Layers that every block has by their names in diffusers: by those of Wan's own code, which other programs keep."""

_IMAGE_BLOCK: Mapping[str, str] = {"attn2.add_k_proj": "cross_attn.k_img", "attn2.add_v_proj": "cross_attn.v_img"}

_OUTSIDE: Mapping[str, str] = {
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.image_embedder.ff.net.0.proj": "img_emb.proj.1",
    "condition_embedder.image_embedder.ff.net.2": "img_emb.proj.3",
    "proj_out": "head.head",
}


def original_name(layer: str) -> str | None:
    """A layer's name in Wan's own code by its name in diffusers; None where it has no other one."""
    if not _in_block(layer):
        return _OUTSIDE.get(layer)
    _, number, own = layer.split(".", 2)
    name = {**_BLOCK, **_IMAGE_BLOCK}.get(own)
    return None if name is None else f"blocks.{number}.{name}"


def _in_block(layer: str) -> bool:
    return layer.startswith("blocks.")


def _kohya_name(layer: str) -> str | None:
    """Of layers in blocks alone: musubi trains no others."""
    name = original_name(layer) if _in_block(layer) else None
    return None if name is None else name.replace(".", "_")


_COMFYUI = LoraFormat("diffusion_model.", original_name, has_alpha=_in_block)
FORMATS: Mapping[str, LoraFormat] = {
    "comfyui": _COMFYUI,
    "lightx2v": _COMFYUI,
    "musubi": LoraFormat("lora_unet_", _kohya_name, needed=tuple(_BLOCK)),
}
"""By the name of `export --format`; LightX2V reads ComfyUI's files."""
