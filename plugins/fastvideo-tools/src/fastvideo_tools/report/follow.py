"""Whether a run is going on, and what to do each time that its folder says more."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from fastvideo_core.dispatch.output_dir import LOCK

PAUSE = 5.0
"""Seconds between two looks at a live run's folder."""

# C's `struct flock` of the whole file, with where its type is.
_FLOCK, _TYPE = ("hhqqi4x", 0) if sys.platform == "linux" else ("qqihh", 3)


def is_live(folder: Path) -> bool:
    """Whether a process holds the folder's lock, which is asked for and never taken: a run that begins must get it.

    False where the file system has no locks.
    """
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # none has run here
        return False
    asked: list[int] = [0] * 5
    asked[_TYPE] = fcntl.F_WRLCK
    try:
        told = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack(_FLOCK, *asked)))
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return bool(told[_TYPE] != fcntl.F_UNLCK)


def follow(folder: Path, write: Callable[[bool], None], wait: Callable[[float], None]) -> None:
    """Calls `write(live)` now, each time that a live run's folder says more, and a last time when the run has ended.

    Args:
        wait: sleeps so many seconds: PAUSE, and longer where a page takes long. Interrupted, it leaves a last page behind too.
    """
    written: object = None
    took = 0.0
    try:
        while is_live(folder):
            if (seen := _seen(folder)) != written:
                begun = time.monotonic()
                write(True)
                took, written = time.monotonic() - begun, seen
            wait(max(PAUSE, 10 * took))
    except KeyboardInterrupt:
        write(False)
        raise
    write(False)


def _seen(folder: Path) -> object:
    """Differs when the log has grown, or a checkpoint or a validation's video is there or gone."""
    log = folder / "metrics.jsonl"
    names = {*folder.glob("checkpoint-*"), *folder.glob("validation/*/*.mp4")}
    return (log.stat().st_size if log.exists() else 0), names
