"""A tiny LTX-2 and the calls that the real pipeline makes of its parts, for the tests of this folder."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import LTX2Pipeline, LTX2VideoTransformer3DModel
from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2VocoderWithBWE
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


def write_ltx23(base: str, out: Path) -> str:
    """The pipeline at `base` with what LTX-2.3 has of its own: a projection of the text per stream, gates, modulated
    cross-attention to the text, and a vocoder that widens the sound to 48 kHz."""
    shutil.copytree(base, out)
    torch.manual_seed(1)
    config = dict(LTX2VideoTransformer3DModel.load_config(base, subfolder="transformer"))
    config |= {"gated_attn": True, "audio_gated_attn": True, "cross_attn_mod": True, "audio_cross_attn_mod": True}
    LTX2VideoTransformer3DModel.from_config({**config, "use_prompt_embeddings": False}).save_pretrained(
        out / "transformer"
    )
    widths = {
        "video": config["num_attention_heads"] * config["attention_head_dim"],
        "audio": config["audio_num_attention_heads"] * config["audio_attention_head_dim"],
    }
    connectors = dict(LTX2TextConnectors.load_config(base, subfolder="connectors"))
    for stream, width in widths.items():
        connectors |= {f"{stream}_hidden_dim": width, f"{stream}_gated_attn": True}
        connectors |= {f"{stream}_connector_attention_head_dim": width // 2}
    LTX2TextConnectors.from_config({**connectors, "per_modality_projections": True}).save_pretrained(out / "connectors")
    _write_wide_vocoder(out)
    return str(out)


def _write_wide_vocoder(pipeline: Path) -> None:
    small: dict[str, Any] = {"resnet_kernel_sizes": [3], "resnet_dilations": [[1]]}
    small |= {f"bwe_{name}": value for name, value in small.items()}
    vocoder = LTX2VocoderWithBWE(hidden_channels=64, bwe_hidden_channels=32, **small)
    for name, buffer in vocoder.named_buffers():
        if name.endswith("_basis"):  # of published folders; diffusers leaves zeros
            buffer.copy_(torch.rand(buffer.shape) / buffer.shape[-1])
    shutil.rmtree(pipeline / "vocoder")
    vocoder.save_pretrained(pipeline / "vocoder")
    file = pipeline / "model_index.json"
    index = {**json.loads(file.read_text()), "vocoder": ["ltx2", LTX2VocoderWithBWE.__name__]}
    file.write_text(json.dumps(index))
