"""TI2V: every token has a noise level of its own, so that a first frame is given by keeping it clean, at level 0."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fastvideo_diffusers.adapter import PreparedLatents
from fastvideo_diffusers.first_frames import GIVEN, drawn_samples, kept
from fastvideo_wan.folder import WanFolder

FIRST_FRAME = "first_frame"
"""Context, beside GIVEN [B, 1, T, 1, 1]: the first frame of each sample [B, C, 1, H, W], normalised."""


def with_given_frames(
    prepared: PreparedLatents, first: Tensor, probability: float, generator: torch.Generator | None
) -> PreparedLatents:
    """A batch in which some samples are given their first frame, without loss there.

    Args:
        prepared: latents [B, C, T, H, W].
        first: clean [B, C, 1, H, W]. The autoencoder is causal: a clip's first latent frame is that of its first image alone.
        probability, generator: of the draw; see `drawn_samples`.
    """
    latents = prepared.latents
    frames = latents.shape[2]
    drawn = drawn_samples(len(latents), probability, frames=frames, generator=generator).to(latents.device)
    given = (drawn[:, None] & (torch.arange(frames, device=latents.device) == 0))[:, None, :, None, None]
    weight = (~given).float() * (1 if prepared.loss_weight is None else prepared.loss_weight)
    context = {**prepared.context, GIVEN: given, FIRST_FRAME: first}
    return PreparedLatents(kept(latents, given, first), context, weight, prepared.extras)


def at_its_level(noisy: Tensor, levels: Tensor, context: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """x_t and levels as the network takes them: given frames clean and at 0.

    Args:
        noisy: x_t [B, C, T, H, W].
        levels: [B], or per frame [B, T].

    Returns:
        x_t, and levels [B] where no frames may be given, else [B, T].
    """
    if (given := context.get(GIVEN)) is None:
        return noisy, levels
    per_frame = levels if levels.ndim == 2 else levels[:, None]
    return kept(noisy, given, context[FIRST_FRAME]), per_frame.masked_fill(given[:, 0, :, 0, 0], 0)


def token_levels(levels: Tensor, shape: torch.Size, folder: WanFolder) -> Tensor:
    """Levels [B] as they are, which is the network's result to 5e-7 and far less work than [B, tokens] of one value; of levels
    per frame [B, T] those of each token [B, tokens], as the pipelines call the network.

    Args:
        shape: of x_t, [B, C, T, H, W].
    """
    if levels.ndim == 1:
        return levels
    frames, height, width = folder.patch_size
    tokens = (shape[3] // height) * (shape[4] // width)
    return levels[:, ::frames].repeat_interleave(tokens, dim=1)
