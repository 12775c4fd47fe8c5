"""What Wan takes from the rows of a data set, and the sizes of latents where it takes none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fastvideo_core.config.training import TrainingArgs
from fastvideo_core.errors import ConfigError, DataError, Problem
from fastvideo_wan.folder import WanFolder
from fastvideo_wan.latents import latent_shape


def stored_text(raw_batch: Mapping[str, Any], folder: WanFolder) -> Tensor:
    """`text_embedding` [B, L, D] as it is stored.

    Raises:
        DataError: there is none, or one that this pipeline cannot take.
    """
    if "text_embedding" not in raw_batch:
        raise DataError(Problem("the data holds no text_embedding", _place(raw_batch)))
    stored: Tensor = raw_batch["text_embedding"]
    if stored.ndim != 3 or stored.shape[-1] != folder.text_dim:
        raise DataError(
            Problem(
                f"text_embedding has shape {list(stored.shape[1:])}",
                _place(raw_batch),
                allowed=f"[tokens, {folder.text_dim}], the width that {folder.path} takes",
                fix="preprocess the captions with this pipeline's text encoder",
            )
        )
    return _floating(stored, "text_embedding", raw_batch)


def stored_latents(raw_batch: Mapping[str, Any], folder: WanFolder, training: TrainingArgs) -> Tensor:
    """`vae_latent` [B, 16, T, H, W] as it is stored, at most `num_latent_t` frames of it.

    Raises:
        DataError: there is none, or one that this pipeline cannot take.
    """
    if "vae_latent" not in raw_batch:
        raise DataError(
            Problem(
                "the data holds captions but no vae_latent",
                _place(raw_batch),
                fix="preprocess videos, or choose a method setting that trains without data latents",
            )
        )
    stored: Tensor = raw_batch["vae_latent"]
    channels = len(folder.latents_mean)
    _, height, width = folder.patch_size
    fits = (
        stored.ndim == 5
        and stored.shape[1] == channels
        and stored.shape[3] % height == 0
        and stored.shape[4] % width == 0
    )
    if not fits:
        raise DataError(
            Problem(
                f"vae_latent has shape {list(stored.shape[1:])}",
                _place(raw_batch),
                allowed=f"[{channels}, T, H, W] with H a multiple of {height} and W of {width}",
                fix="preprocess the videos with this pipeline's VAE, at sizes that are multiples of 16 pixels",
            )
        )
    return _floating(stored, "vae_latent", raw_batch)[:, :, : training.num_latent_t]


def data_free_shape(
    raw_batch: Mapping[str, Any], folder: WanFolder, training: TrainingArgs
) -> tuple[int, int, int, int]:
    """[16, T, H, W] of latents that are not taken from the data: the run's size, else that of the data's latents.

    Raises:
        ConfigError: the sizes of the run are missing or contradict each other.
        DataError: the data's latents give the size and do not fit.
    """
    sizes = (training.num_height, training.num_width, training.num_frames)
    if sizes == (None, None, None) and "vae_latent" in raw_batch:
        _, channels, frames, height, width = stored_latents(raw_batch, folder, training).shape
        return channels, frames, height, width
    return _configured_shape(folder, training)


def _configured_shape(folder: WanFolder, training: TrainingArgs) -> tuple[int, int, int, int]:
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
        elif value % 16:
            problems.append(Problem(f"is {value}", f"training.{name}", allowed="multiples of 16 pixels"))
    if frames is not None and frames % factor != 1:
        problems.append(Problem(f"is {frames}", "training.num_frames", allowed="multiples of 4 plus 1"))
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
    return latent_shape(folder, num_frames=frames, height=height, width=width)


def _floating(stored: Tensor, name: str, raw_batch: Mapping[str, Any]) -> Tensor:
    if not stored.is_floating_point():
        dtype = str(stored.dtype).removeprefix("torch.")
        fix = "preprocess the samples again; whole numbers are no encoding of this pipeline"
        allowed = "float64, float32, float16, bfloat16"
        raise DataError(Problem(f"{name} has dtype {dtype}", _place(raw_batch), allowed=allowed, fix=fix))
    return stored


def _place(raw_batch: Mapping[str, Any]) -> str:
    info = raw_batch.get("info") or [{}]
    name = info[0].get("id") or info[0].get("file_name")
    return f"training.data_path, batch with sample {name}" if name else "training.data_path"
