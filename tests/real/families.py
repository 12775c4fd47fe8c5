"""What the real run needs to know of a family; everything else is the same for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from checks import Size

from fastvideo_core.data.validation import ValidationPrompt
from fastvideo_core.validator import ValidationRequest

FloatFrames = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Family:
    """One family's case.

    Args:
        name: of the family.
        tiny: sizes of the tiny pipeline; large enough to learn the clips in minutes.
        size: of the clips and of the sampled videos.
        pipeline: the class of diffusers that loads an exported folder.
        frames: what `sample` computes before it rounds: (sampler, base folder, request, prompt, generator) to float
            frames [T, H, W, 3] in [0, 1].
        real_latent: file in the shared data with one real latent of this family, or None.
    """

    name: str
    tiny: Mapping[str, int]
    size: Size
    pipeline: str
    frames: Callable[[Any, str, ValidationRequest, ValidationPrompt, torch.Generator], FloatFrames]
    real_latent: str | None = None


def wan_frames(
    sampler: Any, base: str, request: ValidationRequest, prompt: ValidationPrompt, generator: torch.Generator
) -> FloatFrames:
    """The sampler's latents, decoded."""
    from fastvideo_core.distributed import context
    from fastvideo_wan.folder import open_folder
    from fastvideo_wan.latents import decode_frames
    from fastvideo_wan.loading import load_vae

    latents = sampler.sampler.sample_latents(request, prompt, generator)
    frames: FloatFrames = decode_frames(
        load_vae(base, device=context.device()), latents, open_folder(base, where="base")
    )[0].numpy()
    return frames


FAMILIES = {
    "wan": Family(
        name="wan",
        tiny={"num_layers": 2, "num_heads": 4, "head_dim": 32, "ffn_dim": 256},
        size=Size(height=64, width=96, num_frames=17),
        pipeline="WanPipeline",
        frames=wan_frames,
        real_latent="wan21_latent_61x320x512.safetensors",
    ),
}
