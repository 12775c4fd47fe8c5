"""The tracker for tests, under the kit's own roof."""

from __future__ import annotations

from fastvideo_core.tracking.memory import InMemoryTracker, LoggedVideo

__all__ = ["InMemoryTracker", "LoggedVideo"]
