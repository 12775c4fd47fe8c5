"""What LTX takes from the rows of a data set, and the sizes of latents where it takes none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.errors import ConfigError, DataError, Problem
from fastvideo_ltx.config import FRAMES_DIVISOR, SIZE_MULTIPLE
from fastvideo_ltx.folder import LtxFolder
from fastvideo_ltx.layout import TokenLayout


def stored_text(raw_batch: Mapping[str, Any], folder: LtxFolder) -> Tensor:
    """`text_embedding` [B, L, D] as it is stored.

    Raises:
        DataError: there is none, or one that this pipeline cannot take.
    """
    if "text_embedding" not in raw_batch:
        raise DataError(Problem("the data holds no text_embedding", place(raw_batch)))
    stored: Tensor = raw_batch["text_embedding"]
    if stored.ndim != 3 or stored.shape[-1] != folder.text_dim:
        raise DataError(
            Problem(
                f"text_embedding has shape {list(stored.shape[1:])}",
                place(raw_batch),
                allowed=f"[tokens, {folder.text_dim}], the width that {folder.path} takes",
                fix="preprocess the captions with this pipeline's text encoder",
            )
        )
    return floating(stored, "text_embedding", raw_batch)


def stored_video(raw_batch: Mapping[str, Any], folder: LtxFolder, training: TrainingArgs) -> Tensor:
    """`vae_latent` [B, C, F, H, W] as it is stored, at most `num_latent_t` frames of it.

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
    if stored.ndim != 5 or stored.shape[1] != folder.channels:
        raise DataError(
            Problem(
                f"vae_latent has shape {list(stored.shape[1:])}",
                place(raw_batch),
                allowed=f"[{folder.channels}, T, H, W]",
                fix="preprocess the videos with this pipeline's VAE",
            )
        )
    return floating(stored, "vae_latent", raw_batch)[:, :, : training.num_latent_t]


def frame_rates(raw_batch: Mapping[str, Any], default: float, batch_size: int) -> Tensor:
    """The frames per second of each sample [B], float64: the clip's own, else `default`.

    Raises:
        DataError: a clip's rate is no number above 0.
    """
    info = raw_batch.get("info") or [{}] * batch_size
    rates = [default if row.get("fps") is None else float(row["fps"]) for row in info]
    for row, rate in zip(info, rates, strict=True):
        if not 0 < rate < float("inf"):
            where = f"training.data_path, sample {row.get('id') or row.get('file_name')}"
            raise DataError(
                Problem(f"its fps is {rate:g}", where, allowed="a number above 0", fix="correct the column")
            )
    return torch.tensor(rates, dtype=torch.float64)


def data_free_video(raw_batch: Mapping[str, Any], folder: LtxFolder, training: TrainingArgs) -> TokenLayout:
    """The size of latents that are not taken from the data: the run's, else that of the data's latents.

    Raises:
        ConfigError: the sizes of the run are missing or contradict each other.
        DataError: the data's latents give the size and do not fit.
    """
    sizes = (training.num_height, training.num_width, training.num_frames)
    if sizes == (None, None, None) and "vae_latent" in raw_batch:
        return TokenLayout(*stored_video(raw_batch, folder, training).shape[2:])
    return _configured(folder, training)


def layout_of_video(folder: LtxFolder, *, num_frames: int, height: int, width: int) -> TokenLayout:
    """The latents of a video of num_frames (8 k + 1) frames of height x width pixels; no audio."""
    frames = (num_frames - 1) // folder.temporal_factor + 1
    return TokenLayout(frames, height // folder.spatial_factor, width // folder.spatial_factor)


def _configured(folder: LtxFolder, training: TrainingArgs) -> TokenLayout:
    factor = folder.temporal_factor
    height, width, frames, latent_frames = (
        training.num_height,
        training.num_width,
        training.num_frames,
        training.num_latent_t,
    )
    problems = []
    for name, value in (("num_height", height), ("num_width", width)):
        if value is None:
            found = "training without data latents needs a size"
            problems.append(Problem(found, f"training.{name}", fix=f"set training.{name} in pixels"))
        elif value % SIZE_MULTIPLE:
            problems.append(Problem(f"is {value}", f"training.{name}", allowed=f"multiples of {SIZE_MULTIPLE} pixels"))
    if frames is not None and frames % factor != 1:
        allowed = f"multiples of {FRAMES_DIVISOR} plus 1"
        problems.append(Problem(f"is {frames}", "training.num_frames", allowed=allowed))
    elif frames is None and latent_frames is None:
        found = "training without data latents needs a length"
        problems.append(Problem(found, "training.num_latent_t", fix="set it"))
    elif frames is not None and latent_frames not in (None, (frames - 1) // factor + 1):
        problems.append(
            Problem(
                f"{frames} frames are {(frames - 1) // factor + 1} latent frames, not {latent_frames}",
                "training.num_frames",
                fix="give training.num_latent_t and training.num_frames the same length, or only one of them",
            )
        )
    if problems:
        raise ConfigError(problems)
    if latent_frames is not None:
        frames = (latent_frames - 1) * factor + 1
    assert height is not None
    assert width is not None
    assert frames is not None
    return layout_of_video(folder, num_frames=frames, height=height, width=width)


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
    """How errors name a batch."""
    info = raw_batch.get("info") or [{}]
    name = info[0].get("id") or info[0].get("file_name")
    return f"training.data_path, batch with sample {name}" if name else "training.data_path"
