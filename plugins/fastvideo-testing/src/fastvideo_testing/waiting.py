"""Waiting for what happens beside a test: for the event, never for a time that it should take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

LIMIT = 600.0
"""Seconds after which waiting fails: far beyond what a loaded machine needs, so that only a hang reaches it."""


class _Process(Protocol):
    def poll(self) -> int | None: ...


def wait_until(condition: Callable[[], object], what: str, process: _Process | None = None) -> None:
    """Returns once `condition()` is true.

    Args:
        condition: asked again and again.
        what: what is waited for, as the failure names it.
        process: its end while the condition is false is a failure too.

    Raises:
        AssertionError: `LIMIT` seconds have passed, or the process has ended.
    """
    end = time.monotonic() + LIMIT
    while not condition():
        status = process.poll() if process is not None else None
        if status is not None and not condition():
            raise AssertionError(f"the process ended with {status} before this happened: {what}")
        if time.monotonic() > end:
            raise AssertionError(f"waited {LIMIT:.0f} s in vain for this: {what}")
        time.sleep(0.01)
