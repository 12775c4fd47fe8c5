"""What a run reports to: numbers per step and videos."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol


class Tracker(Protocol):
    """Receives a run's metrics and videos on the main process."""

    def resume_after(self, step: int) -> None:
        """Called once before the first step of a process: what was logged after `step` is about to be logged again."""
        ...

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Numbers of one step, plain floats."""
        ...

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
        """A finished mp4, with a PNG of some of its frames, and what makes a GIF of it, for trackers that cannot play it."""
        ...

    def finish(self) -> None:
        """Flushes and closes; nothing may be logged after it."""
        ...


class NullTracker:
    """Takes everything and keeps nothing: the tracker of processes that do not report."""

    def resume_after(self, step: int) -> None:
        return

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        return

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
        return

    def finish(self) -> None:
        return
