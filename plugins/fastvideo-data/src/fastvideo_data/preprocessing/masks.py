"""Masks of clips: how much each place counts in the loss, from black (nothing) to white."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool3d

from fastvideo_core.errors import DataError, Problem
from fastvideo_data.images import is_image
from fastvideo_data.video_files import Frames, iter_frames, picture_size

LOSS_MASK = "loss_mask"
_SUFFIXES = (".mask.mp4", ".mask.png")
_BLACK = 7  # of 255: compressed black is not always 0


def is_mask(path: Path) -> bool:
    """Whether a file is the mask of another one by its name: x.mask.mp4 or x.mask.png, without a caption of its own."""
    return path.name.lower().endswith(_SUFFIXES) and not path.with_suffix(".txt").exists()


def masked_stem(mask: Path) -> Path:
    """The path, without a suffix, of what a mask is of."""
    return mask.with_suffix("").with_suffix("")


def masks_beside(media: Path) -> list[Path]:
    """The masks of a file by their names; one at most makes sense."""
    return [mask for suffix in _SUFFIXES if os.path.isfile(mask := media.with_suffix(suffix))]


def mask_frames(mask: Path, media: Path, *, height: int, width: int, fps: float | None) -> Iterator[Frames]:
    """The frames of a mask as those of its clip are read, [H, W, 3]; an image, the same one for ever.

    Raises:
        DataError: it cannot be read, or its picture is of another shape than that of `media`.
    """
    (high, wide), (own_high, own_wide) = picture_size(media), picture_size(mask)
    if abs(own_wide * high / (own_high * wide) - 1) > 0.02:
        found = f"the mask is {own_wide:g} x {own_high:g} pixels, and its clip {wide:g} x {high:g}"
        raise DataError(Problem(found, str(mask), allowed="a picture of the same shape"))
    frames = iter_frames(mask, height=height, width=width, fps=None if is_image(mask) else fps)
    return itertools.cycle(itertools.islice(frames, 1)) if is_image(mask) else frames


def next_frames(frames: Iterator[Frames], count: int, mask: Path) -> Frames:
    """The next frames of a mask, [T, H, W, 3].

    Raises:
        DataError: there are less.
    """
    found = list(itertools.islice(frames, count))
    if len(found) < count:
        raise DataError(Problem("the mask has fewer frames than its clip", str(mask)))
    return np.stack(found)


def is_black(mask: Frames | None) -> bool:
    """Whether a clip has a mask that leaves nothing of it: its samples would train nothing."""
    return mask is not None and int(mask.max()) <= _BLACK


def loss_mask(mask: Frames | None, latent: Tensor) -> Tensor:
    """`loss_mask` [1, T, h, w] float16 of latents [C, T, h, w]: the mean of the mask over what each latent is of.

    A latent frame is of the first frame, or of as many of the others as go into each. None is 1 everywhere.
    """
    _, frames, height, width = latent.shape
    if mask is None:
        return torch.ones(1, frames, height, width, dtype=torch.float16)
    values = torch.from_numpy(mask).float().mean(dim=-1)[None] / 255
    means = [adaptive_avg_pool3d(values[:, :1], (1, height, width))]
    if frames > 1:
        means.append(adaptive_avg_pool3d(values[:, 1:], (frames - 1, height, width)))
    return torch.cat(means, dim=1).half()
