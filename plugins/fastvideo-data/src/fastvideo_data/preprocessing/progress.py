"""Progress over a known number of items: a bar in a terminal, a plain line now and then in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

from fastvideo_core.launch.stdio import complain

T = TypeVar("T")

_LOG_SECONDS = 15.0


def progress(items: Sequence[T], unit: str) -> Iterator[T]:
    """Yield the items and show on stderr how many are done, how fast, and when the rest will be."""
    if sys.stderr.isatty():
        yield from tqdm(items, unit=unit, dynamic_ncols=True)
        return
    started = shown = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - shown >= _LOG_SECONDS:
            shown = now
            left = (now - started) / done * (len(items) - done)
            eta = tqdm.format_interval(left)
            complain(f"{done}/{len(items)} {unit}s, {done / (now - started):.2f} {unit}/s, {eta} left")
        yield item
