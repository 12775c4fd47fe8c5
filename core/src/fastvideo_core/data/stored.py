"""What a family's adapter takes from a raw batch: tensors as they are stored, once it is clear that they fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fastvideo_core.errors import DataError, Problem


def stored_text(raw_batch: Mapping[str, Any], *, width: int, path: str) -> Tensor:
    """`text_embedding` [B, L, D] as it is stored.

    Args:
        width: the D that the pipeline takes.
        path: folder or hub id of the pipeline.

    Raises:
        DataError: there is none, or one that this pipeline cannot take.
    """
    if "text_embedding" not in raw_batch:
        raise DataError(Problem("the data holds no text_embedding", place(raw_batch)))
    stored: Tensor = raw_batch["text_embedding"]
    if stored.ndim != 3 or stored.shape[-1] != width:
        raise DataError(
            Problem(
                f"text_embedding has shape {list(stored.shape[1:])}",
                place(raw_batch),
                allowed=f"[tokens, {width}], the width that {path} takes",
                fix="preprocess the captions with this pipeline's text encoder",
            )
        )
    return floating(stored, "text_embedding", raw_batch)


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
    if "vae_latent" not in raw_batch:
        raise DataError(
            Problem(
                "the data holds captions but no vae_latent",
                place(raw_batch),
                fix="preprocess videos, or choose a method setting that trains without data latents",
            )
        )
    stored: Tensor = raw_batch["vae_latent"]
    height, width = patch or (1, 1)
    fits = stored.ndim == 5 and stored.shape[1] == channels
    if not fits or stored.shape[3] % height or stored.shape[4] % width:
        multiples = f" with H a multiple of {height} and W of {width}" if patch else ""
        raise DataError(
            Problem(
                f"vae_latent has shape {list(stored.shape[1:])}",
                place(raw_batch),
                allowed=f"[{channels}, T, H, W]{multiples}",
                fix=fix,
            )
        )
    return floating(stored, "vae_latent", raw_batch)[:, :, :most_frames]


def floating(stored: Tensor, name: str, raw_batch: Mapping[str, Any]) -> Tensor:
    """`stored`, which holds numbers with a fraction.

    Raises:
        DataError: it holds whole numbers.
    """
    if not stored.is_floating_point():
        dtype = str(stored.dtype).removeprefix("torch.")
        fix = "preprocess the samples again; whole numbers are no encoding of this pipeline"
        allowed = "float64, float32, float16, bfloat16"
        raise DataError(Problem(f"{name} has dtype {dtype}", place(raw_batch), allowed=allowed, fix=fix))
    return stored


def place(raw_batch: Mapping[str, Any]) -> str:
    """How errors name a batch: by its first sample."""
    info = raw_batch.get("info") or [{}]
    name = info[0].get("id") or info[0].get("file_name")
    return f"training.data_path, batch with sample {name}" if name else "training.data_path"
