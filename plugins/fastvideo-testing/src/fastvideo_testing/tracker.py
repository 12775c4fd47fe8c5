"""A tracker that remembers: for tests, and for looking at a run from a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fastvideo_core.contracts.tracker import LoggedVideo, Tracker


@dataclass
class InMemoryTracker(Tracker):
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

    def log_video(self, video: LoggedVideo) -> None:
        self.videos.append(video)

    def resume_after(self, step: int) -> None:
        """Forgets what was logged after `step`."""
        self.steps = [(at, metrics) for at, metrics in self.steps if at <= step]
        self.videos = [video for video in self.videos if video.step <= step]

    def finish(self) -> None:
        self.finished = True
