"""How programs other than diffusers name the layers of LTX's networks in LoRA files."""

from __future__ import annotations

from collections.abc import Mapping

from fastvideo_diffusers.lora_formats import LoraFormat

_LTX2: Mapping[str, str] = {
    "proj_in": "patchify_proj",
    "audio_proj_in": "audio_patchify_proj",
    "time_embed": "adaln_single",
    "audio_time_embed": "audio_adaln_single",
    "prompt_adaln": "prompt_adaln_single",
    "audio_prompt_adaln": "audio_prompt_adaln_single",
    "av_cross_attn_video_scale_shift": "av_ca_video_scale_shift_adaln_single",
    "av_cross_attn_audio_scale_shift": "av_ca_audio_scale_shift_adaln_single",
    "av_cross_attn_video_a2v_gate": "av_ca_a2v_gate_adaln_single",
    "av_cross_attn_audio_v2a_gate": "av_ca_v2a_gate_adaln_single",
}
"""First parts of names in diffusers: in Lightricks' own code; others are the same in both."""

_RENAMED_IN_LTX_VIDEO = ("proj_in", "time_embed")  # diffusers reads its files without renaming


def _video_name(layer: str) -> str | None:
    return None if layer.partition(".")[0] in _RENAMED_IN_LTX_VIDEO else layer


def _ltx2_name(layer: str) -> str:
    first, dot, rest = layer.partition(".")
    return f"{_LTX2.get(first, first)}{dot}{rest}"


def _none(layer: str) -> bool:
    return False  # diffusers refuses files of LTX with alphas


_PARTS = ("lora_A", "lora_B")
VIDEO_FORMATS: Mapping[str, LoraFormat] = {
    "comfyui": LoraFormat("diffusion_model.", _video_name, parts=_PARTS, has_alpha=_none),
}
"""Of LTX-Video, by the name of `export --format`."""

LTX2_FORMATS: Mapping[str, LoraFormat] = dict.fromkeys(
    ("comfyui", "lightx2v"), LoraFormat("diffusion_model.", _ltx2_name, parts=_PARTS, has_alpha=_none)
)
"""Of LTX-2; LightX2V reads ComfyUI's files."""
