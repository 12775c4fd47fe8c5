"""What a family's adapter takes from a raw batch: tensors as they are stored, once it is clear that they fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from fastvideo_core.errors import DataError, Problem
from fastvideo_data.raw_batch import place


def stored_text(raw_batch: Mapping[str, Any], *, width: int, path: str) -> Tensor:
    """`text_embedding` [B, L, D] as it is stored.

    Args:
        width: the D that the pipeline takes.
        path: folder or hub id of the pipeline.

    Raises:
        DataError: there is none, or one that this pipeline cannot take.
    """
    return stored_tensor(
        raw_batch,
        "text_embedding",
        fits=lambda stored: stored.ndim == 3 and stored.shape[-1] == width,
        allowed=f"[tokens, {width}], the width that {path} takes",
        fix="preprocess the captions with this pipeline's text encoder",
    )


def stored_latents(
    raw_batch: Mapping[str, Any],
    *,
    channels: int,
    patch: tuple[int, int] | None = None,
    most_frames: int | None = None,
    fix: str = "preprocess the videos with this pipeline's VAE",
) -> Tensor:
    """`vae_latent` [B, C, T, H, W] of videos as it is stored, at most `most_frames` of its T.

    Args:
        channels: the C that the pipeline takes.
        patch: what H and W must be multiples of; None for any.
        fix: what to do about another shape.

    Raises:
        DataError: there is none, or one that this pipeline cannot take.
    """
    height, width = patch or (1, 1)
    multiples = f" with H a multiple of {height} and W of {width}" if patch else ""
    stored = stored_tensor(
        raw_batch,
        "vae_latent",
        fits=lambda stored: (
            stored.ndim == 5
            and stored.shape[1] == channels
            and stored.shape[3] % height == 0
            and stored.shape[4] % width == 0
        ),
        allowed=f"[{channels}, T, H, W]{multiples}",
        fix=fix,
        absent=Problem(
            "the data holds captions but no vae_latent",
            place(raw_batch),
            fix="preprocess videos, or choose a method setting that trains without data latents",
        ),
    )
    return stored[:, :, :most_frames]


def stored_loss_mask(raw_batch: Mapping[str, Any], frames: int, height: int, width: int) -> Tensor | None:
    """`loss_mask` [B, 1, T, H, W], >= 0: how much each place of the latents counts in the loss. None where the data holds none.

    Args:
        frames, height, width: of the latents; later frames of the mask are left out.

    Raises:
        DataError: it is of another size, or holds something else.
    """
    if "loss_mask" not in raw_batch:
        return None
    mask = stored_tensor(
        raw_batch,
        "loss_mask",
        fits=lambda stored: (
            stored.ndim == 5 and stored.shape[2] >= frames and stored[0, :, 0].shape == (1, height, width)
        ),
        allowed=f"[1, {frames}, {height}, {width}], as its latents",
        fix="preprocess the videos with their masks again",
    )
    if not bool(((mask >= 0) & mask.isfinite()).all()):
        fix = "write 0 where nothing shall be learnt, and 1 elsewhere"
        raise DataError(Problem("loss_mask holds what is no weight", place(raw_batch), allowed="numbers >= 0", fix=fix))
    return mask[:, :, :frames]


def stored_tensor(
    raw_batch: Mapping[str, Any],
    name: str,
    *,
    fits: Callable[[Tensor], bool],
    allowed: str,
    fix: str,
    absent: Problem | None = None,
) -> Tensor:
    """A tensor of the batch as it is stored, once it is clear that it fits.

    Args:
        name: its key.
        fits: whether its shape, with the batch in front, is right.
        allowed: the right shape of a sample, for the message, and `fix` what to do about another one.
        absent: the problem when the batch has no such tensor; None says just that.

    Raises:
        DataError: there is none, its shape does not fit, or it holds whole numbers.
    """
    if name not in raw_batch:
        raise DataError(absent or Problem(f"the data holds no {name}", place(raw_batch)))
    stored: Tensor = raw_batch[name]
    if not fits(stored):
        found = f"{name} has shape {list(stored.shape[1:])}"
        raise DataError(Problem(found, place(raw_batch), allowed=allowed, fix=fix))
    return _floating(stored, name, raw_batch)


def _floating(stored: Tensor, name: str, raw_batch: Mapping[str, Any]) -> Tensor:
    if not stored.is_floating_point():
        dtype = str(stored.dtype).removeprefix("torch.")
        fix = "preprocess the samples again; whole numbers are no encoding of this pipeline"
        allowed = "float64, float32, float16, bfloat16"
        raise DataError(Problem(f"{name} has dtype {dtype}", place(raw_batch), allowed=allowed, fix=fix))
    return stored
