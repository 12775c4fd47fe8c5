"""Small data sets, clips and an encoder for the tests of this folder; as a script, it preprocesses slowly."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from fastvideo_data.preprocessing.clips import PreprocessOptions
from fastvideo_data.preprocessing.run import preprocess
from fastvideo_data.video_files import write_video
from fastvideo_data.video_sizes import VideoGeometry

OPTIONS = PreprocessOptions(height=16, width=16, num_frames=5, clips="all", samples_per_file=3, batch_size=2)


def foreign_row(number: int, latent: np.ndarray, text: np.ndarray) -> dict[str, Any]:
    """A row as another program writes it: the schema's columns, and some that nobody here knows."""
    row: dict[str, Any] = {"id": f"s{number}", "caption": f"caption {number}", "media_type": "video"}
    row |= {"file_name": f"{number}.mp4", "width": 16, "height": 16, "num_frames": 2, "duration_sec": 0.5, "fps": 16.0}
    row |= {"aesthetic_score": 0.5, "thumbnail_bytes": b"png"}
    for name, array in (("vae_latent", latent), ("text_embedding", text)):
        row |= {f"{name}_bytes": array.tobytes(), f"{name}_shape": list(array.shape), f"{name}_dtype": str(array.dtype)}
    return row


def sample_row(number: int, *, shape: Sequence[int] = (2, 2, 2, 2), dtype: str = "float32") -> dict[str, Any]:
    """Row `number`: a latent filled with `number`, a text embedding [1 + number % 3, 4]."""
    latent = np.full(shape, number, dtype)
    return foreign_row(number, latent, np.full((1 + number % 3, 4), number, dtype))


def write_file(path: Path, rows: Sequence[dict[str, Any]], *, group: int = 2, **metadata: str) -> None:
    """Write rows with plain pyarrow, `group` rows to a row group."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows))
    pq.write_table(table.replace_schema_metadata(metadata or None), path, row_group_size=group)


def write_numbered(root: Path, sizes: Sequence[int], *, group: int = 2) -> None:
    """Files with rows numbered through, `sizes` rows each."""
    start = 0
    for i, size in enumerate(sizes):
        write_file(root / f"part-{i}.parquet", [sample_row(start + k) for k in range(size)], group=group)
        start += size


def ids(batch: dict[str, Any]) -> list[int]:
    """The row numbers in a batch."""
    return [int(info["id"][1:]) for info in batch["info"]]


def write_clip(
    path: Path, frames: int, *, fps: float = 16.0, size: tuple[int, int] = (16, 24), caption: str = ""
) -> None:
    """A clip whose brightness rises from frame to frame, and its caption beside it."""
    height, width = size
    levels = np.linspace(30, 220, frames).astype(np.uint8)
    write_video(path, np.broadcast_to(levels[:, None, None, None], (frames, height, width, 3)).copy(), fps)
    if caption:
        path.with_suffix(".txt").write_text(caption)


class FakeEncoder:
    """Latents are pixel means, embeddings are character codes; no model."""

    geometry = VideoGeometry(frames_divisor=4, frames_remainder=1, size_multiple=8, fps=16.0)

    def __init__(self, *, hangs_after: int | None = None, model: str = "fake") -> None:
        self.hangs_after = hangs_after
        self.model = model
        self.videos = 0
        self.texts = 0

    def describe(self) -> dict[str, str]:
        return {"model": self.model, "latents_normalised": "false"}

    def encode_videos(self, frames: Tensor) -> list[dict[str, Tensor]]:
        assert frames.dtype == torch.uint8
        assert frames.ndim == 5
        while self.hangs_after is not None and self.videos >= self.hangs_after:
            time.sleep(1)  # for ever: it is killed here
        self.videos += len(frames)
        means = frames.float().mean(dim=(2, 3))[:, ::4]  # [B, T', 3]
        return [{"vae_latent": clip.T[:, :, None, None].to(torch.bfloat16)} for clip in means]

    def encode_texts(self, captions: Sequence[str]) -> list[Tensor]:
        self.texts += len(captions)
        return [torch.tensor([[float(ord(c)), 0.0] for c in caption]) for caption in captions]


if __name__ == "__main__":
    preprocess(FakeEncoder(hangs_after=8), sys.argv[1], sys.argv[2], OPTIONS)
