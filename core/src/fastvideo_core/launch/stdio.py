"""What shows and reports a run when it fails (a full disk, a reader that has gone): no reason for the run to end."""

import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from fastvideo_core.errors import printable

logger = logging.getLogger(__name__)

FAILURES = (OSError, ValueError)  # what writing to a stream raises: the system refuses, or it is closed


def say(text: object = "", *, flush: bool = False) -> None:
    """Lines on standard output, as `printable` shows them: the only way in which commands print."""
    print(printable(text), flush=flush)


class PrintableFormatter(logging.Formatter):
    """Log messages as `printable` shows them."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def complain(text: str) -> None:
    """One line or more on standard error; where that fails there is nobody to tell."""
    try:
        print(printable(text), file=sys.stderr, flush=True)
    except FAILURES:
        _give_up(sys.stderr)


class Attempts:
    """Makes calls of trackers and displays, which may fail: the first failure is logged, and training goes on."""

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


def drop_unwritten() -> None:
    """Gives up what was printed and cannot be written: Python would try once more at its end, and exit with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # it was closed when Python started
                stream.flush()
        except FAILURES:
            _give_up(stream)


def _give_up(stream: Any) -> None:
    with suppress(*FAILURES, AttributeError), open(os.devnull, "wb") as nowhere:  # None, or no stream of the system's
        os.dup2(nowhere.fileno(), stream.fileno())
