"""TensorBoard event files."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard.writer import SummaryWriter

from fastvideo_data.video_files import iter_frames, probe


class TensorboardTracker:
    """Scalars, contact sheets, and videos as the animated GIF that TensorBoard plays in its image tab.

    Args:
        folder: where the event files go.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = str(folder)
        self._writer = SummaryWriter(self._folder)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def log_video(
        self, name: str, path: Path, step: int, *, caption: str = "", contact_sheet: Path | None = None
    ) -> None:
        self._add_image(name, *animated_gif(path), step)
        if contact_sheet is not None:
            with Image.open(contact_sheet) as sheet:
                self._add_image(f"{name}/frames", contact_sheet.read_bytes(), sheet.size, step)
        if caption:
            self._writer.add_text(f"{name}/caption", caption, step)
        self._writer.flush()

    def resume_after(self, step: int) -> None:
        """From now on TensorBoard hides what the folder's earlier event files hold of steps after `step`."""
        self._writer.close()
        self._writer = SummaryWriter(self._folder, purge_step=step + 1)

    def finish(self) -> None:
        self._writer.close()

    def _add_image(self, name: str, encoded: bytes, size: tuple[int, int], step: int) -> None:
        image = Summary.Image(encoded_image_string=encoded, width=size[0], height=size[1], colorspace=3)
        summary = Summary(value=[Summary.Value(tag=name, image=image)])
        self._writer._get_file_writer().add_summary(summary, step)  # type: ignore[no-untyped-call]


def animated_gif(path: str | Path) -> tuple[bytes, tuple[int, int]]:
    """A video file's frames as an endless GIF, and its (width, height) in pixels.

    GIF counts time in hundredths of a second; browsers play frames shorter than 0.02 s slowly, so that is the shortest.
    """
    frames = [Image.fromarray(np.asarray(frame)) for frame in iter_frames(path)]
    times = np.arange(len(frames) + 1) * 100 / (probe(path).fps or 16)
    durations: list[Any] = [max(2, int(length)) * 10 for length in np.diff(times.round())]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return file.getvalue(), frames[0].size
