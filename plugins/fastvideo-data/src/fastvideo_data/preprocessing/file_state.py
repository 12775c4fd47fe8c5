"""Whether a file still holds what it held: by size and times where they are the same, else by its content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

_PIECE = 1 << 20
_PIECES = 64
"""Larger files are compared by so many pieces, the first and the last among them: a film is not read for its first clip."""


@dataclass(frozen=True)
class FileState:
    """A file as it was once.

    Args:
        size: bytes.
        mtime_ns: when its content changed, as far as programs say.
        ctime_ns: when anything about it changed, as the system says: copies of equal size that keep mtime have another one.
        digest: of its content.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    digest: str

    @classmethod
    def of(cls, path: Path) -> FileState:
        """A file as it is now.

        Raises:
            OSError: it cannot be read.
        """
        stat = path.stat()  # before the content: what is written meanwhile has later times
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, _digest(path, stat.st_size))

    def untouched(self, path: Path) -> bool:
        """Whether size and times are the same: then the content is, too.

        Raises:
            OSError: there is no such file.
        """
        stat = path.stat()
        return (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) == (self.size, self.mtime_ns, self.ctime_ns)

    def same_content(self, path: Path) -> bool:
        """Whether a file that was touched, moved or copied holds the same.

        Raises:
            OSError: it cannot be read.
        """
        size = path.stat().st_size
        return size == self.size and _digest(path, size) == self.digest


def _digest(path: Path, size: int) -> str:
    digest = hashlib.blake2b(digest_size=16)
    whole = size <= _PIECE * _PIECES
    starts = range(0, size, _PIECE) if whole else (i * (size - _PIECE) // (_PIECES - 1) for i in range(_PIECES))
    with path.open("rb") as file:
        for start in starts:
            file.seek(start)
            digest.update(file.read(_PIECE))
    return digest.hexdigest()
