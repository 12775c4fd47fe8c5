"""A tiny LTX-2 and the calls that the real pipeline makes of its parts, for the tests of this folder."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import torch
from diffusers import LTX2Pipeline
from torch import Tensor

HEIGHT, WIDTH, FRAMES, FPS = 64, 96, 9, 24.0
PLAIN = {
    "stg_scale": 0.0,
    "modality_scale": 1.0,
    "guidance_rescale": 0.0,
    "audio_stg_scale": 0.0,
    "audio_modality_scale": 1.0,
    "audio_guidance_rescale": 0.0,
    "spatio_temporal_guidance_blocks": None,
}
"""LTX2Pipeline without its extra guidance terms."""


def open_pipeline(path: str) -> LTX2Pipeline:
    """The pipeline as any user of diffusers loads it."""
    pipeline = LTX2Pipeline.from_pretrained(path)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@contextmanager
def recorded(module: torch.nn.Module):
    """Inside, the list grows by (keyword arguments, output) of each of the module's calls."""
    calls: list[tuple[dict[str, Any], Any]] = []

    def keep(_: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        calls.append((kwargs, output))

    hook = module.register_forward_hook(keep, with_kwargs=True)
    try:
        yield calls
    finally:
        hook.remove()


def generate(
    pipeline: LTX2Pipeline, prompt: str = "a cat", *, steps: int = 2, guidance: float = 1.0, **more: Any
) -> Any:
    """One video with sound: what the pipeline returns."""
    prompts = {} if "prompt_embeds" in more else {"prompt": prompt}
    return pipeline(
        **prompts,
        height=HEIGHT,
        width=WIDTH,
        num_frames=FRAMES,
        frame_rate=FPS,
        num_inference_steps=steps,
        guidance_scale=guidance,
        audio_guidance_scale=guidance,
        generator=torch.Generator().manual_seed(3),
        return_dict=False,
        **{**PLAIN, **more},
    )


def packed(video: Tensor, audio: Tensor) -> Tensor:
    return torch.cat([video, audio], dim=1)
