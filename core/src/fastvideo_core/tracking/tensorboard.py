"""TensorBoard event files."""

from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard.writer import SummaryWriter

from fastvideo_core.contracts.tracker import LoggedVideo, Tracker


class TensorboardTracker(Tracker):
    """Scalars, contact sheets, and videos as the animated GIF that TensorBoard plays in its image tab."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = str(folder)
        self._writer = SummaryWriter(self._folder)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def log_video(self, video: LoggedVideo) -> None:
        if video.gif is not None:
            self._add_image(video.name, video.gif(), video.step)
        if video.contact_sheet is not None:
            self._add_image(f"{video.name}/frames", video.contact_sheet.read_bytes(), video.step)
        if video.caption:
            self._writer.add_text(f"{video.name}/caption", video.caption, video.step)
        self._writer.flush()

    def resume_after(self, step: int) -> None:
        """From now on TensorBoard hides what the folder's earlier event files hold of steps after `step`."""
        self._writer.close()
        self._writer = SummaryWriter(self._folder, purge_step=step + 1)

    def finish(self) -> None:
        self._writer.close()

    def _add_image(self, name: str, encoded: bytes, step: int) -> None:
        width, height = _size_of(encoded)
        image = Summary.Image(encoded_image_string=encoded, width=width, height=height, colorspace=3)
        summary = Summary(value=[Summary.Value(tag=name, image=image)])
        self._writer._get_file_writer().add_summary(summary, step)  # type: ignore[no-untyped-call]


def _size_of(encoded: bytes) -> tuple[int, int]:
    """Width and height in pixels of a GIF or PNG, from its header."""
    if encoded.startswith(b"GIF8"):
        return int.from_bytes(encoded[6:8], "little"), int.from_bytes(encoded[8:10], "little")
    return int.from_bytes(encoded[16:20], "big"), int.from_bytes(encoded[20:24], "big")
