"""The files of a data set's folder, for raw samples and for parquet: what is hidden is no data, links are followed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

from fastvideo_core.errors import DataError, Problem

_NO_DATA = frozenset({"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"})
"""What systems put beside the data, besides names with a leading dot (._a.mp4, .ipynb_checkpoints)."""


def files_below(root: Path) -> list[Path]:
    """All files in and below a folder that may be data, sorted.

    Links to folders are followed, after all that is there without them: a link that is added renames nothing. A folder that
    is reached by several ways is read once.

    Raises:
        DataError: a folder cannot be read.
    """
    found, seen, starts = [], set(), [root]
    for start in starts:  # grows while it is gone through
        for folder, subfolders, files in os.walk(start, onerror=_refused):
            real = os.path.realpath(folder)
            if real in seen:
                subfolders.clear()
                continue
            seen.add(real)
            subfolders[:] = sorted(name for name in subfolders if not _hidden(name))
            starts += [path for name in subfolders if (path := Path(folder, name)).is_symlink()]
            found += [Path(folder, name) for name in files if not _hidden(name)]
    return sorted(found)


def _refused(error: OSError) -> NoReturn:
    fix = "make it readable, or move it out of the data"
    raise DataError(Problem(f"cannot be read: {error.strerror}", str(error.filename), fix=fix)) from error


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in _NO_DATA
