"""A tracker that remembers: for tests, and for looking at a run from a notebook."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class LoggedVideo:
    """One call of `log_video`."""

    name: str
    path: Path
    step: int
    caption: str
    contact_sheet: Path | None


@dataclass
class InMemoryTracker:
    """Keeps everything it is given.

    Attributes:
        steps: (step, metrics) of every call of `log`.
        videos: every call of `log_video`.
        finished: whether `finish` was called.
    """

    steps: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    videos: list[LoggedVideo] = field(default_factory=list)
    finished: bool = False

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.steps.append((step, dict(metrics)))

    def log_video(
        self,
        name: str,
        path: Path,
        step: int,
        *,
        caption: str = "",
        contact_sheet: Path | None = None,
        gif: Callable[[], bytes] | None = None,
    ) -> None:
        self.videos.append(LoggedVideo(name, path, step, caption, contact_sheet))

    def resume_after(self, step: int) -> None:
        """Forgets what was logged after `step`."""
        self.steps = [(at, metrics) for at, metrics in self.steps if at <= step]
        self.videos = [video for video in self.videos if video.step <= step]

    def finish(self) -> None:
        self.finished = True
