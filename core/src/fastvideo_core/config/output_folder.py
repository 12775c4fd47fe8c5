"""Whether results can be written, asked before the work that makes them."""

import os
import tempfile
from pathlib import Path

from fastvideo_core.errors import ConfigError, Problem


def check_new_folder(path: str | Path) -> None:
    """Raises ConfigError for a folder that holds something already, or that `check_writable_folder` refuses."""
    folder = Path(path)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ConfigError(Problem("there is something already", where=str(path), fix="name a new folder"))
    check_writable_folder(path)


def check_writable_folder(path: str | Path, where: str = "") -> None:
    """Raises ConfigError, which tells `where` the path was given, for a folder that cannot be made or written; leaves nothing."""
    folder = Path(path).absolute()
    while not os.path.lexists(folder):
        folder = folder.parent
    if folder.is_dir():
        try:
            os.rmdir(tempfile.mkdtemp(prefix=".fastvideo-", dir=folder))
            return
        except OSError as error:
            found = f"cannot write into {folder}: {error.strerror}"
    else:
        found = f"{folder} is a file"
    place = f"{where} ({path})" if where else str(path)
    raise ConfigError(Problem(found, place, allowed="a folder that can be written", fix="name another folder"))
