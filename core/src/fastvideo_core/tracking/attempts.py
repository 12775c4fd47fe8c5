"""Calls of trackers and displays: the first failure is logged, and training goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable

logger = logging.getLogger(__name__)


class Attempts:
    """Makes calls that may fail."""

    def __init__(self) -> None:
        self.failed: set[str] = set()

    def __call__(self, failure: str, call: Callable[..., None], *args: object) -> None:
        """Calls `call`; `failure` says in words what it means that it fails."""
        try:
            call(*args)
        except Exception as error:
            if failure not in self.failed:
                self.failed.add(failure)
                text = "%s: %s: %s (training goes on, and it is still tried; further failures are not shown)"
                logger.error(text, failure, type(error).__name__, error)
