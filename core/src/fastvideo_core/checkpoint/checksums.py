"""Sums of stored bytes, so that what a disk changed is not trained on.

Every file of a checkpoint has its sums beside it, `NAME.sums`: the CRC-32 of each part by the part's offset. state.json
has the sum of each of these. Its own need none: where they and state.json disagree, one of the two is damaged.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastvideo_core.errors import CheckpointError, Problem, foreign_file

SUFFIX = ".sums"

_KIND = "crc32"
_BLOCK = 2**23  # a multiple of a word, see _word_sum

_DAMAGED = "use another checkpoint; this one is damaged"

Bytes = npt.NDArray[np.uint8]


def checksum(data: bytes | Bytes, before: int = 0) -> int:
    """The CRC-32 of bytes that follow those of which it is `before`."""
    return zlib.crc32(data, before)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Sums:
    """The sums of a file's parts.

    Args:
        parts: the sum by the offset of the part.
        add: the sum of bytes, and of those before them.
    """

    parts: Mapping[int, int]
    add: Callable[[Any, int], int]

    def fit(self, offset: int, data: Bytes) -> bool:
        """Whether these are the bytes that were written there; empty parts and files without sums always are."""
        return not self.parts or len(data) == 0 or self.parts.get(offset) == self.add(data, 0)

    def fit_file(self, file: Path) -> bool:
        """Whether every part of a file is as it was written; reads all of it.

        Raises:
            OSError: it cannot be read.
        """
        block = np.empty(_BLOCK, np.uint8)
        starts = sorted(self.parts)
        with file.open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            for start, end in zip(starts, [*starts[1:], size], strict=False):
                source.seek(start)
                total, left = 0, end - start
                while left > 0 and (count := source.readinto(block[: min(left, _BLOCK)].data)):
                    total, left = self.add(block[:count], total), left - count
                if total != self.parts[start]:
                    return False
        return True


def sums_path(file: Path) -> Path:
    """Where the sums of a file lie."""
    return file.with_name(file.name + SUFFIX)


def write_file(path: Path, content: bytes) -> None:
    """Writes and syncs one file, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_sums(file: Path, sums: Mapping[int, int]) -> None:
    """Leaves the sums of a file's parts, by offset, beside it, synced."""
    write_file(sums_path(file), json.dumps({_KIND: {str(offset): value for offset, value in sums.items()}}).encode())


def read_sums(file: Path) -> Sums:
    """The sums of a file's parts; without any for a file that has none (of format 2, as state.json lists the others').

    Raises:
        CheckpointError: they are damaged themselves.
    """
    path = sums_path(file)
    with foreign_file(path, "list of sums", CheckpointError, _DAMAGED):
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            return Sums({}, checksum)
        known = _KIND in content
        parts = content[_KIND] if known else content
        return Sums({int(offset): int(value) for offset, value in parts.items()}, checksum if known else _word_sum)


def write_summed(file: Path, content: bytes) -> None:
    """As `write_file`, with the sum of the bytes beside it."""
    write_file(file, content)
    write_sums(file, {0: checksum(content)})


def read_summed(file: Path) -> bytes:
    """What `write_summed` wrote, or the bytes of a file that has no sums.

    Raises:
        CheckpointError: it cannot be read, or is not what was written.
    """
    with foreign_file(file, "part of a checkpoint", CheckpointError, _DAMAGED):
        content = file.read_bytes()
        if not read_sums(file).fit(0, np.frombuffer(content, np.uint8)):
            raise CheckpointError(Problem("was changed since it was written", str(file), fix=_DAMAGED))
        return content


def _word_sum(data: Bytes, before: int = 0) -> int:
    """The sums of format 2: 64-bit words modulo 2^64, the last one filled up with zeros."""
    whole = len(data) // 8 * 8
    words: npt.NDArray[np.uint64] = data[:whole].view("<u8")
    rest = int.from_bytes(data[whole:].tobytes(), "little")
    return (before + int(words.sum(dtype=np.uint64)) + rest) % 2**64
