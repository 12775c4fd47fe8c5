"""The given frames of an image-to-video network: as the data stores them, and as the network takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.errors import ConfigError, Problem
from fastvideo_data.raw_batch import place
from fastvideo_diffusers.latents import per_channel
from fastvideo_diffusers.stored_tensors import stored_tensor
from fastvideo_wan.folder import WanFolder
from fastvideo_wan.image_conditions import ImageConditions

FIRST_FRAME, BOTH_ENDS, CLIP_FEATURE = "first_frame_latent", "first_last_frame_latent", "clip_feature"
"""The stored tensors: the latents of a video of the first frame alone (FastVideo's name for it), of one of first and last frame,
and the features of these images (FastVideo's name)."""
CONDITION, FEATURES = "image_condition", "image_features"
"""Keys of a batch's context."""


def latents_name(images: ImageConditions) -> str:
    """The stored tensor that holds the latents of the given frames."""
    return BOTH_ENDS if images.both_ends else FIRST_FRAME


def image_tensors(images: ImageConditions | None) -> tuple[str, ...]:
    """The stored tensors that a network needs."""
    if images is None:
        return ()
    return (latents_name(images), *(() if images.features is None else (CLIP_FEATURE,)))


def normalise_condition(latents: Tensor, folder: WanFolder) -> Tensor:
    """(z - mean) (1 / std) per channel, float32, in the order of operations of WanImageToVideoPipeline; z [B, C, T, H, W]."""
    inverse_std = 1.0 / per_channel(folder.latents_std, latents.device)
    return (latents.float() - per_channel(folder.latents_mean, latents.device)) * inverse_std


def given_frames(raw_batch: Mapping[str, Any], folder: WanFolder, shape: Sequence[int]) -> dict[str, Tensor]:
    """What the network is told of the images, by the keys of the context; on the data's device.

    Args:
        shape: of the batch's latents, [B, C, T, H, W]. The latents of a first frame may be longer, as the autoencoder is
            causal; those of both ends may not.

    Returns:
        CONDITION, float32 [B, mask + C, T, H, W], and FEATURES [B, tokens, D], of two images [B, 2, tokens, D].

    Raises:
        DataError: the data lacks them, or they do not fit.
    """
    images = folder.images
    assert images is not None
    name, (_, channels, frames, height, width) = latents_name(images), shape
    fix = "preprocess the videos with this pipeline, at the size and length of the run"

    def fits(stored: Tensor) -> bool:
        if stored.ndim != 5:
            return False
        enough = stored.shape[2] == frames if images.both_ends else stored.shape[2] >= frames
        return enough and [stored.shape[1], *stored.shape[3:]] == [channels, height, width]

    length = frames if images.both_ends else f"{frames} or more"
    allowed = f"[{channels}, {length}, {height}, {width}], as of the latents"
    absent = Problem(
        f"the data holds no {name}, and the network of {folder.path} is given {_what(images)}",
        place(raw_batch),
        fix=fix,
    )
    stored = stored_tensor(raw_batch, name, fits=fits, allowed=allowed, fix=fix, absent=absent)[:, :, :frames]
    latents = stored.float() if raw_batch.get(f"{name}_normalised", True) else normalise_condition(stored, folder)
    mask = frames_mask(frames, folder.temporal_factor, both_ends=images.both_ends).to(latents.device)
    mask = mask[None, :, :, None, None].expand(len(latents), -1, -1, height, width)
    context = {CONDITION: torch.cat([mask, latents], dim=1)}
    if images.features is not None:
        wanted = (*((2,) if images.both_ends else ()), *images.features)
        context[FEATURES] = stored_tensor(
            raw_batch,
            CLIP_FEATURE,
            fits=lambda stored: tuple(stored.shape[1:]) == wanted,
            allowed=f"{list(wanted)}, of the image encoder of {folder.path}",
            fix=fix,
        ).float()
    return context


def check_length(folder: WanFolder, training: TrainingArgs) -> None:
    """The run trains on whole clips where the last frame is given.

    Raises:
        ConfigError: it cuts them.
    """
    if folder.images is not None and folder.images.both_ends and (most := training.num_latent_t) is not None:
        found = f"found {most}, and the network of {folder.path} is given the last frame too, which would be cut off"
        raise ConfigError(Problem(found, "training.num_latent_t", fix="remove it"))


def frames_mask(frames: int, temporal_factor: int, *, both_ends: bool) -> Tensor:
    """[temporal_factor, T], 1 where a video frame is given: the first latent frame is one video frame, the others are
    `temporal_factor` each, of which the last is the last channel's."""
    mask = torch.zeros(temporal_factor, frames)
    mask[:, 0] = 1
    if both_ends:
        mask[-1, -1] = 1
    return mask


def _what(images: ImageConditions) -> str:
    return "the first and the last frame" if images.both_ends else "the first frame"
