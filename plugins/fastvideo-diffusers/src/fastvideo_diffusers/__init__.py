"""What every model family on a diffusers pipeline shares: see the README for what an author writes and what this gives.

The names that families use are imported lazily from here, so that `import fastvideo_diffusers` loads neither torch nor diffusers.
"""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "DiffusersFamily": "family",
    "halved": "family",
    "PipelineFolder": "folder",
    "open_pipeline": "folder",
    "check_components": "folder",
    "check_values": "folder",
    "read_config": "folder",
    "read_tensors": "folder",
    "whole_numbers": "folder",
    "PipelineAdapter": "adapter",
    "PreparedLatents": "adapter",
    "PipelineSampler": "sampler",
    "PromptConditions": "sampler",
    "path_sampler": "sampler",
    "PipelineEncoder": "encoder",
    "T5TextEncoder": "text",
    "pad_text": "text",
    "StoredEncoder": "identity",
    "encoder_identity": "identity",
    "load_model": "loading",
    "load_frozen": "loading",
    "load_text_model": "loading",
    "load_tokenizer": "loading",
    "meta_model": "loading",
    "outline_model": "loading",
    "stored_weights": "loading",
    "normalise": "latents",
    "denormalise": "latents",
    "frames_of": "latents",
    "shown": "latents",
    "export_pipeline": "export",
    "write_lora": "export_lora",
    "LoraFormat": "lora_formats",
    "pipeline_shift": "scheduler_shift",
    "shifted_scheduler": "scheduler_shift",
    "Autocast": "autocast",
    "student_of": "schedule_fit",
    "fitted_scheduler": "schedule_fit",
    "byte_tokenizer": "tiny",
    "save_pipeline": "tiny",
    "seeded": "tiny",
    "t5_encoder": "tiny",
    "VideoLimits": "video_limits",
    "TRANSFORMER": "folder",
    "noise_axis": "folder",
    "check_sizes": "tiny",
}

__all__ = [*_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'fastvideo_diffusers' has no attribute '{name}'")
    return getattr(importlib.import_module(f"fastvideo_diffusers.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
