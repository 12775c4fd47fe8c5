"""Standard output and error when they fail (a full disk, a reader that has gone): no reason for a run to end."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import Any

from fastvideo_core.errors.shown import printable

FAILURES = (OSError, ValueError)
"""What writing to a stream raises: the system refuses, or it is closed."""


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
