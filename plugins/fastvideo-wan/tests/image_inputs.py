"""Clips whose given frames image-to-video pipelines are shown, and batches of what preprocess makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor

from fastvideo_core.config.run import RunConfig
from fastvideo_core.contracts.family import ModelComponents
from fastvideo_wan.encoder import WanEncoder
from fastvideo_wan.family import WanFamily

CPU = torch.device("cpu")
CAPTION = "a cat"


def clips(count: int = 2, frames: int = 9) -> Tensor:
    """uint8 [B, T, 32, 48, 3], each frame another."""
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (count, frames, 32, 48, 3), dtype=torch.uint8, generator=generator)


def stored(path: str, videos: Tensor, *, caption: str = CAPTION) -> dict[str, Any]:
    """The raw batch of these clips, as preprocess and the loader give it."""
    encoder = WanEncoder(path, CPU)
    # One at a time: the bits of a batch are those of its own sums.
    rows = [encoder.encode_videos(video[None])[0] for video in videos]
    (text,) = encoder.encode_texts([caption])
    states = {name: value == "true" for name, value in encoder.describe().items() if name.endswith("_normalised")}
    return {
        **{name: torch.stack([row[name] for row in rows]) for name in rows[0]},
        "text_embedding": text[None].expand(len(videos), -1, -1),
        "vae_latent_normalised": states.pop("latents_normalised"),
        **states,
        "info": [{"id": f"clip {index}"} for index in range(len(videos))],
    }


def build(run_config: Callable[..., RunConfig], path: str, **roles: bool) -> ModelComponents:
    """Components of a run over one pipeline, its negative prompt encoded."""
    given = roles or {"student": True}
    cfg = run_config(given, paths=dict.fromkeys(given, path), pipeline={"negative_prompt": "blurred"})
    built = WanFamily().build(cfg)
    built.adapter.on_train_start()
    return built


def images_of(path: str, video: Tensor) -> dict[str, Image.Image]:
    """What the plain pipeline is asked for beside the caption, of one clip [T, H, W, 3]."""
    images = {"image": Image.fromarray(video[0].numpy())}
    return images | ({"last_image": Image.fromarray(video[-1].numpy())} if "flf2v" in path else {})


def plain(path: str, video: Tensor, *, pipeline: Any = None, **options: Any) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
    """The plain pipeline's latents of a clip's images, and (prediction, t, x_t) of every step as its scheduler got them."""
    pipeline = DiffusionPipeline.from_pretrained(path) if pipeline is None else pipeline
    pipeline.set_progress_bar_config(disable=True)
    handed: list[tuple[Tensor, ...]] = []
    step = pipeline.scheduler.step

    def note(prediction: Tensor, t: Tensor, x: Tensor, **more: Any) -> Any:
        handed.append((prediction, t, x))
        return step(prediction, t, x, **more)

    pipeline.scheduler.step = note
    given = {"generator": torch.Generator().manual_seed(3), "num_inference_steps": 4, "guidance_scale": 1.0, **options}
    frames, height, width, _ = video.shape
    size = {"height": height, "width": width, "num_frames": frames, "output_type": "latent", "return_dict": False}
    try:
        latents = pipeline(prompt=CAPTION, negative_prompt="blurred", **{**images_of(path, video), **size, **given})[0]
    finally:
        pipeline.scheduler.step = step
    return latents, handed
