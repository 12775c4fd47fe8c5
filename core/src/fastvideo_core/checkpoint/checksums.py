"""Sums of stored bytes, so that what a disk changed is not trained on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fastvideo_core.checkpoint.storage import write_file

_WORD = 8
_SUFFIX = ".sums"


def checksum(data: npt.NDArray[np.uint8]) -> int:
    """The sum of the 64-bit words modulo 2^64, the last one filled up with zeros.

    Any flipped bit changes it, and it takes no longer than reading the memory.
    """
    whole = len(data) // _WORD * _WORD
    words: npt.NDArray[np.uint64] = data[:whole].view("<u8")
    rest = int.from_bytes(data[whole:].tobytes(), "little")
    return (int(words.sum(dtype=np.uint64)) + rest) % 2**64


def write_sums(file: Path, sums: Mapping[int, int]) -> None:
    """Leaves the sums of a file's parts, by offset, beside it, synced."""
    with file.with_name(file.name + _SUFFIX).open("w", encoding="utf-8") as target:
        json.dump({str(offset): value for offset, value in sums.items()}, target)
        target.flush()
        os.fsync(target.fileno())


def read_sums(file: Path) -> dict[int, int]:
    """The sums of a file's parts by offset; none for a file that was written without.

    Raises:
        ValueError: they are damaged themselves.
    """
    try:
        text = file.with_name(file.name + _SUFFIX).read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    return {int(offset): int(value) for offset, value in json.loads(text).items()}


def write_summed(file: Path, content: bytes) -> None:
    """As `storage.write_file`, with the sum of the bytes beside it."""
    write_file(file, content)
    write_sums(file, {0: checksum(np.frombuffer(content, np.uint8))})


def read_summed(file: Path) -> bytes:
    """What `write_summed` wrote, or the bytes of a file that was written without a sum.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not what was written.
    """
    content = file.read_bytes()
    stored = read_sums(file).get(0)
    if stored is not None and stored != checksum(np.frombuffer(content, np.uint8)):
        raise ValueError("it was changed since it was written")
    return content
