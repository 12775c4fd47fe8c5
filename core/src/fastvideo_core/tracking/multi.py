"""One tracker in front of several."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from fastvideo_core.contracts.tracker import Tracker

logger = logging.getLogger(__name__)


class MultiTracker:
    """Passes everything on to each of its trackers; one that fails is reported once, and training goes on.

    Args:
        trackers: by the name used in reports.
    """

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        self.trackers = dict(trackers)
        self._failed: set[str] = set()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._each(lambda tracker: tracker.log(metrics, step))

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
        self._each(
            lambda tracker: tracker.log_video(name, path, step, caption=caption, contact_sheet=contact_sheet, gif=gif)
        )

    def resume_after(self, step: int) -> None:
        self._each(lambda tracker: tracker.resume_after(step))

    def finish(self) -> None:
        self._each(lambda tracker: tracker.finish())

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in self.trackers.items():
            try:
                act(tracker)
            except Exception as error:
                if name not in self._failed:
                    self._failed.add(name)
                    logger.error(
                        "tracker '%s' failed: %s: %s (it is still tried; further failures are not shown)",
                        name,
                        type(error).__name__,
                        error,
                    )
