"""Image-to-video training where the first latent frame is given: it enters the network clean, stays clean, and has no loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastvideo_core.errors import ConfigError, Problem

GIVEN = "given"
"""Context: where latents are given (bool)."""


def drawn_samples(count: int, probability: float, *, frames: int, generator: torch.Generator | None) -> Tensor:
    """Which samples are given their first frame, [count], on the CPU; no draw decides when the probability is 1.

    Args:
        frames: of the latents; where there is one, nothing would be left to learn, and none is given.

    Raises:
        ValueError: there is no generator to draw from.
    """
    if probability < 1 and generator is None:
        raise ValueError("first frames are given at random: prepare_batch() needs a generator")
    drawn = torch.ones(count, dtype=torch.bool)
    if probability < 1:
        assert generator is not None
        drawn = (torch.rand(count, generator=generator, device=generator.device) < probability).cpu()
    return drawn if frames > 1 else torch.zeros_like(drawn)


def kept(latents: Tensor, given: Tensor, clean: Tensor) -> Tensor:
    """Latents with the clean ones where they are given; all three broadcastable to each other."""
    return torch.where(given, clean.to(latents.dtype), latents)


def check_first_frames(stored: Sequence[int], asked: Sequence[int]) -> None:
    """First frames (H, W) of the data fit latents (H, W) of the run's size.

    Raises:
        ConfigError: they do not.
    """
    if tuple(stored) != tuple(asked):
        (height, width), (asked_height, asked_width) = stored, asked
        raise ConfigError(
            Problem(
                f"asks for {asked_height} x {asked_width} latents, but the data's first frames are {height} x {width}",
                where="training.num_height, training.num_width",
                fix="train at the size of the data, or without pipeline_config.first_frame_probability",
            )
        )
