"""A family made ready for checks: a tiny pipeline, a small data set, and its components as often as they are needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastvideo_core.config.base import PluginConfig
from fastvideo_core.contracts.batch import TrainingBatch
from fastvideo_core.contracts.family import ModelComponents
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.dispatch.runtime import build_components
from fastvideo_core.training.trainer import endless
from fastvideo_data.data_set import DataSet
from fastvideo_data.encoder import LatentEncoder
from fastvideo_data.preprocessing.clips import PreprocessOptions
from fastvideo_data.preprocessing.run import preprocess
from fastvideo_data.video_files import write_video
from fastvideo_data.video_sizes import VideoGeometry
from fastvideo_testing.runs import resolve_run

CAPTIONS = ("A red  Square &gt; to the right", "two blue circles, very slowly", "green", "nothing at all happens here")
"""The first has what many pipelines clean: capitals stay, two spaces become one, and `&gt;` its character."""
_SAMPLE_RATE = 48000


@dataclass(frozen=True)
class Clip:
    """The size of the clips of a check."""

    height: int
    width: int
    num_frames: int

    @classmethod
    def smallest(cls, geometry: VideoGeometry) -> Clip:
        """A small size that is not square, of more than one latent frame."""
        multiple = geometry.size_multiple
        small = -(-max(32, geometry.least_size) // multiple)  # below 32 pixels pictures vanish in an autoencoder
        frames = geometry.frames_divisor + geometry.frames_remainder
        return cls(small * multiple, (small + 1) * multiple, frames)


@dataclass(frozen=True)
class PreparedFamily:
    """A family's pipeline and data on disk.

    Args:
        folder: where new files of a check may go.
        run: run.yaml as data; student and teacher have the same path.
        clip: the size of the data's clips; None for a family that brings its own data.
        sound: whether the clips have sound, which the family encodes.
    """

    folder: Path
    run: Mapping[str, Any]
    clip: Clip | None
    sound: bool = False

    def components(self, **paths: str) -> ModelComponents:
        """Everything built anew, ready to train; roles may have other paths."""
        roles = {name: {**role, "path": paths.get(name, role["path"])} for name, role in self.run["roles"].items()}
        components = build_components(resolve_run(self.folder, {**self.run, "roles": roles}))
        for handle in components.bundle:
            for module in handle.modules.values():
                module.requires_grad_(handle.trainable).train(False)
        start = getattr(components.adapter, "on_train_start", None)
        if start is not None:
            start()
        return components

    def raw_batch(self, components: ModelComponents) -> Any:
        """Two samples as the run's data loader gives them."""
        if (data := self._data()) is not None:
            return next(iter(data.loader(batch_size=2, seed=0)))
        assert components.dataloader is not None, "build gives no dataloader, and the run names no data_path"
        return next(endless(components.dataloader))

    def one_row(self, components: ModelComponents) -> Any:
        """A raw batch of one sample, as the run's data loader gives it; of two where the family brings its data."""
        data = self._data()
        return self.raw_batch(components) if data is None else data.examples()[0]

    def _data(self) -> DataSet | None:
        """The run's data, the first of several data sets; None where it names none."""
        path = self.run["training"].get("data_path")
        if path is None:
            return None
        data = DataSet(path if isinstance(path, str) else path[0]["path"])
        return data.select(wanted=data.stored_names)  # also those that only this family knows

    def with_options(self, **options: Any) -> PreparedFamily:
        """The same files with other values in `pipeline_config`."""
        return replace(self, run={**self.run, "pipeline_config": {**self.run["pipeline_config"], **options}})

    def section(self) -> PluginConfig:
        """`pipeline_config` as the run resolves it.

        Raises:
            UserError: the family refuses it.
        """
        return resolve_run(self.folder, self.run).cfg.pipeline_config


def write_clips(folder: Path, clip: Clip, fps: float, *, sound: bool = False) -> None:
    """Small clips of noise with captions; their sound, where they have any, is noise too."""
    folder.mkdir(parents=True)
    for index, caption in enumerate(CAPTIONS):
        draws = np.random.default_rng(index)
        frames = draws.integers(0, 255, (clip.num_frames, clip.height, clip.width, 3), dtype=np.uint8)
        waveform = draws.uniform(-0.5, 0.5, (2, round(clip.num_frames / fps * _SAMPLE_RATE))).astype(np.float32)
        audio, rate = (waveform, _SAMPLE_RATE) if sound else (None, None)
        write_video(folder / f"{index}.mp4", frames, fps, audio=audio, sample_rate=rate)
        (folder / f"{index}.txt").write_text(caption + "\n", encoding="utf-8")


def smooth_clip(clip: Clip) -> Tensor:
    """A clip uint8 [1, T, H, W, 3]: red grows to the right, green shrinks downwards, blue grows in time."""
    time, height, width = (torch.linspace(0, 1, size) for size in (clip.num_frames, clip.height, clip.width))
    red = (0.1 + 0.8 * width)[None, None].expand(clip.num_frames, clip.height, -1)
    green = (0.9 - 0.6 * height)[None, :, None].expand(clip.num_frames, -1, clip.width)
    blue = (0.2 + 0.5 * time)[:, None, None].expand(-1, clip.height, clip.width)
    return (torch.stack([red, green, blue], dim=-1)[None] * 255).round().to(torch.uint8)


def encode_clips(encoder: LatentEncoder, clips: Path, data: Path, clip: Clip) -> None:
    """The clips of a folder as parquet."""
    options = PreprocessOptions(clip.height, clip.width, clip.num_frames, fps_policy="keep", batch_size=2)
    preprocess(encoder, clips, data, options)


def noisy_input(components: ModelComponents, batch: TrainingBatch, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Noise [B, ...], timesteps [B] inside the noise axis, and the noisy latents [B, ...]."""
    adapter: Any = components.adapter
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch.latents.shape, generator=generator).to(batch.latents.device)
    t = torch.linspace(0.35, 0.75, batch.batch_size).to(batch.latents.device) * adapter.num_train_timesteps
    return noise, t, adapter.add_noise(batch.latents, noise, t)


def one_row_of(raw: Mapping[str, Any], index: int) -> dict[str, Any]:
    """A raw batch of one row of `raw`, its caption as long as it is."""
    size = len(raw["text_embedding"])
    cut: dict[str, Any] = dict(raw)
    for name, value in raw.items():
        if isinstance(value, (Tensor, list)) and len(value) == size:
            cut[name] = value[index : index + 1]
    length = int(cut["text_embedding_length"][0])
    return {**cut, "text_embedding": cut["text_embedding"][:, :length]}


def one_sample(batch: TrainingBatch, index: int) -> TrainingBatch:
    """A batch of one sample of `batch`."""

    def cut(value: Any) -> Any:
        per_sample = isinstance(value, list) or (isinstance(value, Tensor) and value.ndim > 0)
        return value[index : index + 1] if per_sample and len(value) == batch.batch_size else value

    def cut_all(values: dict[str, Tensor] | None) -> dict[str, Tensor] | None:
        return None if values is None else {name: cut(value) for name, value in values.items()}

    return replace(
        batch,
        latents=batch.latents[index : index + 1],
        conditioning={name: cut(value) for name, value in batch.conditioning.items()},
        negative_conditioning=cut_all(batch.negative_conditioning),
        dropped_conditioning=cut_all(batch.dropped_conditioning),
        context={name: cut(value) for name, value in batch.context.items()},
        loss_weight=None if batch.loss_weight is None else cut(batch.loss_weight),
        extras={name: cut(value) for name, value in batch.extras.items()},
    )


def disturb(handle: RoleHandle, size: float = 0.05) -> None:
    """Moves every floating-point weight of a role a little, always in the same way."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, parameter in handle.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise.to(parameter.device, parameter.dtype), alpha=size)


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
