"""A disk that has no room for more than some bytes of data."""

from __future__ import annotations

import errno
import io
import os
from typing import Any

import pytest

from fastvideo_data import schema


def small_disk(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """From now on, parquet files find room for so many bytes in all."""
    left = room

    class File(io.FileIO):
        def write(self, data: Any) -> int:
            nonlocal left
            left -= memoryview(data).nbytes
            if left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    monkeypatch.setattr(schema, "open", File, raising=False)
