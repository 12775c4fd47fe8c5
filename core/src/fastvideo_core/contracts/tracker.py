"""What a run reports to: numbers per step and videos."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class LoggedVideo:
    """A finished mp4, a PNG of some of its frames, and what makes a GIF of it for trackers that cannot play an mp4."""

    name: str
    path: Path
    step: int
    caption: str = ""
    contact_sheet: Path | None = None
    gif: Callable[[], bytes] | None = field(default=None, compare=False)


class Tracker:
    """Receives a run's metrics and videos on the main process; this one, of the other processes, keeps nothing."""

    def resume_after(self, step: int) -> None:
        """Called once before the first step of a process: what was logged after `step` is about to be logged again."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Numbers of one step, plain floats."""

    def log_video(self, video: LoggedVideo) -> None:
        """A video of the step that it names."""

    def finish(self) -> None:
        """Flushes and closes; nothing may be logged after it."""
