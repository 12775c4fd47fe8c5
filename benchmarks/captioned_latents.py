"""A small world of captioned latents whose distribution is known, and the distance between two sets of samples of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fastvideo_core.contracts.family import open_family
from fastvideo_core.registry import PluginRegistry
from fastvideo_data.schema import encode_tensor, key_value_metadata, t2v_schema, write_part

LATENT = (16, 1, 4, 4)
ROWS, PROJECTIONS = 3072, 512

CAPTIONS = {
    "waves side by side, from left to right": (0, 1),
    "layers on top of each other": (1, 0),
    "a slanted swell over both edges, like rain in the wind": (1, 1),
}
"""Caption -> waves per height and width of the latent."""

WAVE, SPREAD = 0.7, 0.8


def clips(caption: int, number: int, generator: torch.Generator) -> Tensor:
    """Latents [number, 16, 1, 4, 4] of one caption: its pattern, and as much detail that no caption tells.

    A pattern is a wave in the caption's direction times a texture over the channels. The detail has about the spread of
    real latents: four long steps of a many-step model lose a good part of it (they end at the mean of what could be),
    which is what a few-step student has to put right.
    """
    down, right = list(CAPTIONS.values())[caption]
    channels, _, height, width = LATENT
    fixed = torch.Generator().manual_seed(100 + caption)
    texture = torch.randn(channels, 1, 1, 1, generator=fixed)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    wave = math.sqrt(2) * texture * torch.cos(2 * math.pi * (down * y / height + right * x / width))
    return WAVE * wave + SPREAD * torch.randn(number, *LATENT, generator=generator)


def encode_captions(pipeline: Path) -> list[Tensor]:
    """The pipeline's own text embeddings, [L, D] each."""
    encoder = open_family("wan", PluginRegistry(), "encoder")
    encoded: list[Tensor] = encoder.encoder(str(pipeline), device=torch.device("cpu")).encode_texts(list(CAPTIONS))
    return encoded


def write_data(folder: Path, embeddings: Sequence[Tensor]) -> None:
    """The data set, in the format of `fastvideo-distill preprocess`."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for caption, (text, embedding) in enumerate(zip(CAPTIONS, embeddings, strict=True)):
        for number, latent in enumerate(clips(caption, ROWS // len(CAPTIONS), generator)):
            row: dict[str, object] = {"id": f"{caption}-{number}", "file_name": "", "caption": text}
            row |= {"media_type": "video", "width": LATENT[3] * 8, "height": LATENT[2] * 8, "num_frames": LATENT[1]}
            row |= {"duration_sec": 1 / 16, "fps": 16.0}
            rows.append(row | encode_tensor("vae_latent", latent) | encode_tensor("text_embedding", embedding))
    folder.mkdir()
    write_part(folder / "part.parquet", rows, t2v_schema(), key_value_metadata(normalised=True, settings={}))


def sliced_wasserstein(ours: Sequence[Tensor], theirs: Sequence[Tensor], seed: int) -> float:
    """W1 on random lines, the mean over PROJECTIONS unit vectors and over the captions.

    Both sides have as many samples of each caption (Rabin et al. 2011; Bonneel et al. 2015).
    """
    generator = torch.Generator().manual_seed(seed)
    distances = []
    for x, y in zip(ours, theirs, strict=True):
        lines = torch.randn(x[0].numel(), PROJECTIONS, generator=generator)
        lines /= lines.norm(dim=0)
        ordered = [(samples.flatten(1) @ lines).sort(dim=0).values for samples in (x, y)]
        distances.append(float((ordered[0] - ordered[1]).abs().mean()))
    return sum(distances) / len(distances)
