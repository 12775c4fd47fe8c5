"""The processes that our launcher started for one run: they register in its folder, and leave their errors there.

The launcher shows one error, and hands signals on to those who can take them. Under other launchers there is no folder.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER_VARIABLE = "FASTVIDEO_LAUNCHER_FOLDER"


@dataclass(frozen=True)
class ProcessError:
    """What a process said before it ended.

    Args:
        rank: the process.
        time: seconds since the epoch.
        text: as it is to be shown.
        status: the exit status that it ends with, unless it is ended before.
    """

    rank: int
    time: float
    text: str
    status: int


def launcher_folder() -> Path | None:
    """Where the launcher of this process reads; None when it is not ours."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return Path(folder) if folder and "RANK" in os.environ else None


def register_process() -> None:
    """Tells the launcher and the other processes that this one is there."""
    _register("pid")


def register_ready() -> None:
    """Tells the launcher that this process takes signals from now on."""
    _register("ready")


def ready_processes(folder: Path) -> list[int]:
    """Ids of the processes that take signals."""
    return _registered(folder, "ready")


def ended_siblings() -> list[int]:
    """Ids of registered processes of this run that are gone."""
    folder = launcher_folder()
    return [] if folder is None else [pid for pid in _registered(folder, "pid") if not _is_alive(pid)]


def report_error(text: str, status: int) -> bool:
    """Leaves `text` for the launcher to show; False when there is none of ours, so that it must be shown here."""
    folder = launcher_folder()
    if folder is None or not folder.is_dir():
        return False
    rank = int(os.environ["RANK"])
    _write(folder / f"error-{rank}", json.dumps(asdict(ProcessError(rank, time.time(), text, status))))
    return True


def reported_errors(folder: Path) -> list[ProcessError]:
    """What processes left, earliest first."""
    errors = [ProcessError(**json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob("error-*")]
    return sorted(errors, key=lambda error: error.time)


def _register(kind: str) -> None:
    if (folder := launcher_folder()) is not None:
        _write(folder / f"{kind}-{os.environ['RANK']}", str(os.getpid()))


def _registered(folder: Path, kind: str) -> list[int]:
    return [int(path.read_text()) for path in sorted(folder.glob(f"{kind}-*"))]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)
