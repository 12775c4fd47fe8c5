"""Calls that may fail without ending a run."""

from __future__ import annotations

import logging
from collections.abc import Callable

logger = logging.getLogger(__name__)


class Attempts:
    """Makes calls; the first one of a kind that fails is logged, and training goes on."""

    def __init__(self) -> None:
        self.failed: set[str] = set()

    def __call__(self, failure: str, act: Callable[[], None]) -> None:
        """Calls `act`; `failure` says in words what it means that it fails."""
        try:
            act()
        except Exception as error:
            if failure not in self.failed:
                self.failed.add(failure)
                text = "%s: %s: %s (training goes on, and it is still tried; further failures are not shown)"
                logger.error(text, failure, type(error).__name__, error)
