"""What LTX takes from the rows of a data set, and the sizes of latents where it takes none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.errors import DataError, Problem
from fastvideo_data.raw_batch import SOURCE
from fastvideo_data.video_sizes import VideoSize, data_free_size
from fastvideo_diffusers import stored_tensors as stored
from fastvideo_ltx.config import SIZE_MULTIPLE
from fastvideo_ltx.folder import LtxFolder
from fastvideo_ltx.layout import TokenLayout


def stored_video(raw_batch: Mapping[str, Any], folder: LtxFolder, training: TrainingArgs) -> Tensor:
    """`vae_latent` [B, C, F, H, W] as it is stored, at most `num_latent_t` frames of it.

    Raises:
        DataError: there is none, or one that this pipeline cannot take.
    """
    return stored.stored_latents(raw_batch, channels=folder.channels, most_frames=training.num_latent_t)


def frame_rates(raw_batch: Mapping[str, Any], default: float, batch_size: int) -> Tensor:
    """The frames per second of each sample [B], float64: the clip's own, else `default`, which an image has, too.

    Raises:
        DataError: a clip's rate is no number above 0.
    """
    info = raw_batch.get("info") or [{}] * batch_size
    still = [row.get("fps") is None or row.get("media_type") == "image" for row in info]
    rates = [default if none else float(row["fps"]) for none, row in zip(still, info, strict=True)]
    for row, rate in zip(info, rates, strict=True):
        if not 0 < rate < float("inf"):
            where = f"{raw_batch.get(SOURCE, 'training.data_path')}, sample {row.get('id') or row.get('file_name')}"
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
    size = data_free_size(training, size_multiple=SIZE_MULTIPLE, temporal_factor=folder.temporal_factor)
    return layout_of_video(folder, size)


def layout_of_video(folder: LtxFolder, size: VideoSize) -> TokenLayout:
    """The latents of a video of 8 k + 1 frames; no audio."""
    return TokenLayout(*folder.latent_size(size))
